"""Pictures: data in, figures out."""

import plotly.graph_objects as go
import pytest

from components import figures
from components.style import COLOURS, DASHES, PATTERNS, SYMBOLS, TITLES, ordered
from merging.metrics import Score
from merging.rules import RULES

METHODS = ["experts", "isotropic", "fisher", "ensemble"]
HOSTILE = "<img src=x onerror=alert(1)>"


def score_figure(*asked) -> go.Figure:
    """The figure as an object: Plotly refuses what its schema does not know."""
    return go.Figure(figures.score_figure(*asked))


def _bars(figure: go.Figure) -> dict[str, go.Bar]:
    return {bars.name: bars for bars in figure.data}


def test_bars_show_every_method_on_every_task_and_their_mean(four_result):
    bars = _bars(score_figure(four_result.scores, four_result.singles, 1200))
    assert list(bars) == [TITLES[method] for method in METHODS]
    for method in METHODS:
        own = bars[TITLES[method]]
        assert list(own.x) == [*four_result.scores[method], "<b>mean</b>"]
        expected = [100 * score.value for score in four_result.scores[method].values()]
        assert list(own.y) == pytest.approx([*expected, 100 * four_result.mean(method)])


def test_error_bars_reach_from_the_lower_to_the_upper_end_of_the_interval(four_result):
    bars = _bars(score_figure(four_result.scores, four_result.singles, 1200))
    for method in METHODS:
        error = bars[TITLES[method]].error_y
        for index, score in enumerate(four_result.scores[method].values()):
            value = bars[TITLES[method]].y[index]
            assert value + error.array[index] == pytest.approx(100 * score.high)
            assert value - error.arrayminus[index] == pytest.approx(100 * score.low)
        assert error.array[-1] == error.arrayminus[-1] == 0  # a mean over tasks has no interval of its own


def test_methods_differ_in_colour_and_the_merges_in_pattern(four_result):
    figure = score_figure(four_result.scores, four_result.singles, 1200)
    assert len({bars.marker.color for bars in figure.data}) == len(METHODS)
    for method, bars in zip(METHODS, figure.data, strict=True):
        assert (bars.marker.color, bars.marker.pattern.shape) == (COLOURS[method], PATTERNS[method])
    assert len({PATTERNS[method] for method in ("isotropic", "fisher", "ensemble")}) == 3


def test_models_of_one_task_have_a_bar_each(seeds_result):
    figure = score_figure(seeds_result.scores, seeds_result.singles, 1200)
    names = [bars.name for bars in figure.data]
    assert names[:5] == [f"seed-{index}" for index in range(5)]
    assert names[5:] == [TITLES[method] for method in METHODS[1:]]
    assert all(list(bars.x) == list(seeds_result.scores["fisher"]) for bars in figure.data)


def test_a_model_that_cannot_do_a_task_leaves_a_gap_and_has_no_mean():
    score = Score("accuracy", 0.5, 0.4, 0.6, 10)
    scores = {"isotropic": {"a": score, "b": score}}
    singles = {"one": {"a": score, "b": score}, "two": {"a": score}}
    bars = _bars(score_figure(scores, singles, 1200))
    assert list(bars["two"].y) == [50.0, None, None]
    assert list(bars["one"].y) == [50.0, 50.0, 50.0]


def test_a_phone_gets_no_numbers_on_its_bars(four_result):
    wide = score_figure(four_result.scores, four_result.singles, 1200)
    narrow = score_figure(four_result.scores, four_result.singles, 390)
    assert all(bars.text is not None for bars in wide.data)
    assert all(bars.text is None for bars in narrow.data)


def test_names_are_text_in_every_figure():
    scores = {method: {HOSTILE: Score("accuracy", 0.5, 0.4, 0.6, 10)} for method in METHODS}
    singles = {HOSTILE: scores["fisher"], "b": scores["fisher"]}
    text = str(score_figure(scores, singles, 1200).to_dict())
    assert "<img" not in text
    assert "&lt;img" in text


def test_every_method_is_told_apart_by_colour_and_pattern_and_by_its_symbol():
    methods = ("experts", *RULES, "ensemble")
    assert len({(COLOURS[method], PATTERNS[method]) for method in methods}) == len(methods)
    assert len({(COLOURS[method], DASHES[method]) for method in (*RULES, "ensemble")}) == len(methods) - 1
    assert len({SYMBOLS[method] for method in methods}) == len(methods)
    assert len({TITLES[method] for method in methods}) == len(methods)
    assert ordered(reversed(methods)) == list(methods)
