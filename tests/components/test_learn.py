"""The Learn tab's pictures and handlers: numbers in, pictures out; bad values in, a sentence out."""

import math
from dataclasses import replace

import numpy
import plotly.graph_objects as go
import pytest

from components import learn
from components.learn import CENTRES, EXAMPLE, PRESETS, drawn
from components.learn_figures import cost_picture, quality_picture, short_number
from components.learn_gaussians import formula_html, gaussians_picture, ladder_picture
from components.store import Store
from merging.diagnostics import Cost, Costs, FisherQuality, Gaussian, optima
from merging.pipeline import prepare
from merging.recipe import EvaluationSettings
from merging.rules import RuleSettings
from tests import cases
from tests.benchmarks.slider import form_values

KEPT = (0.5, 0.1)


def _models(values) -> list[Gaussian]:
    return [Gaussian(CENTRES[index], *values[3 * index : 3 * index + 3]) for index in (0, 1)]


MODELS = _models(EXAMPLE)
HOSTILE = "<img src=x onerror=alert(1)>"
QUALITY = FisherQuality(
    (1, 2, 4), {"parity": (0.4, 0.8, 1.0), HOSTILE: (0.5, 0.9, 1.0)}, (0.8, 0.81, 0.82), 0.72, "test"
)
COSTS = Costs(
    work=(
        Cost("fine-tuning", 6e11, 20.0, "counted", "scaled"),
        Cost("Fisher", 1e10, 1.0, "counted", "scaled"),
        Cost("Fisher merge", 2e6, 0.01, "formula", "whole merge"),
        Cost("isotropic merge", 1e6, 0.005, "formula", "whole merge"),
    ),
    each_input=(
        Cost("the merge", 4e6, 1e-4, "counted", "scaled"),
        Cost("the ensemble", 16e6, 4e-4, "counted", "scaled"),
    ),
    models=4,
    epochs=20,
    rows=2400,
    fisher_examples=1024,
)


def _points(figure: go.Figure) -> dict[str, tuple[float, float]]:
    return {trace.name: (trace.x[0], trace.y[0]) for trace in figure.data if trace.mode == "markers"}


def test_the_two_regressions_are_drawn_where_they_are_known_to_lie():
    picture = gaussians_picture(MODELS, [0.5, 0.5])
    points = _points(picture.figure)
    assert points["full Fisher"] == pytest.approx((1.25, 1.25))
    assert points["diagonal Fisher"] == pytest.approx((5 / 3, 2 / 3))
    assert points["isotropic"] == pytest.approx((2, 1))
    assert (points["model 1"], points["model 2"]) == CENTRES
    assert points["K-FAC"] == pytest.approx((16.58 / 10.64, 9.74 / 10.64))
    losses = {row[0]: row[3] for row in picture.rows}
    expected = {"isotropic": 4.0, "diagonal Fisher": 32 / 9, "K-FAC": losses["K-FAC"], "full Fisher": 2.5}
    assert losses == pytest.approx(expected)
    for text in ("2.50", "2.91", "3.56", "4.00"):
        assert text in picture.sentence


def test_the_formula_holds_the_numbers_that_the_merge_was_made_of():
    html = formula_html(MODELS, [0.5, 0.5])
    assert "0.5·2·1 + 0.5·1·3" in html
    assert "0.5·1·2 + 0.5·2·0" in html
    assert "1.6667" in html
    assert "0.6667" in html
    assert "".join(f"<span>{number}</span>" for number in ("1.15", "0.5", "0.5", "2.15")) in html
    assert "(1.5583, 0.9154)" in html
    assert "α = 0.5 and δ = 0.1" in html


def test_dotted_lines_of_equal_loss_pass_through_their_optima():
    figure = gaussians_picture(MODELS, [0.5, 0.5]).figure
    dotted = [trace for trace in figure.data if trace.mode == "lines" and trace.line.dash == "dot"]
    for trace, name in zip(dotted, ("K-FAC", "diagonal Fisher", "isotropic"), strict=True):
        x, y = _points(figure)[name]
        assert min(math.hypot(a - x, b - y) for a, b in zip(trace.x, trace.y, strict=True)) < 0.06


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_drawn(preset):
    sentence, figure, numbers, formula, *ladder = drawn(*PRESETS[preset], *KEPT)
    assert "lands at" in sentence
    assert isinstance(figure, go.Figure)
    assert "Numbers as a table" in numbers
    assert "θ*₁" in formula
    assert "The ladder: " in ladder[0]
    assert isinstance(ladder[1], go.Figure)
    assert "gained by this step" in ladder[2]


@pytest.mark.parametrize("values", PRESETS.values(), ids=PRESETS)
def test_the_ladder_shows_what_each_rule_loses_above_the_least(values):
    picture = ladder_picture(_models(values), [0.5, 0.5])
    losses = [own.loss for own in optima(_models(values), [0.5, 0.5]).values()]
    (bars,) = picture.figure.data
    assert list(bars.x) == ["isotropic", "diagonal", "K-FAC", "full"]
    assert list(bars.y) == pytest.approx([loss - losses[-1] for loss in losses], abs=1e-9)
    assert [row[1] for row in picture.rows] == list(bars.y)
    assert [row[2] for row in picture.rows[1:]] == pytest.approx(list(-numpy.diff(losses)), abs=1e-9)
    assert bars.text[-1] == "0"


@pytest.mark.parametrize(
    ("preset", "kept", "told"),
    [
        ("Two regressions", KEPT, "the diagonal gains 0.444, K-FAC gains 0.641, the full Fisher gains 0.415."),
        ("Two regressions", (1, 0), "K-FAC gains 1.06, the full Fisher gains nothing: with all off-diagonals kept"),
        ("Two regressions", (0, 0), "K-FAC gains nothing, the full Fisher gains 1.06: with no off-diagonals kept"),
        ("Each sure of one parameter", KEPT, "K-FAC loses 0.045, the full Fisher gains 0.045: no precision is tilted"),
        (
            "Each sure of one parameter",
            (0.5, 0),
            "gains nothing, the full Fisher gains nothing: no precision is tilted",
        ),
        ("Equally sure", KEPT, "all four rules land at the least loss that there is"),
        ("Tilted against each other", KEPT, "the diagonal loses 6.31, K-FAC gains 5.84"),
        ("Tilted against each other", KEPT, "the diagonal leaves the tilts out, which is worse here"),
    ],
)
def test_the_ladder_tells_what_each_step_gains_also_where_it_gains_nothing_or_loses(preset, kept, told):
    settings = RuleSettings(shrinkage=kept[0], damping=kept[1])
    assert told in ladder_picture(_models(PRESETS[preset]), [0.5, 0.5], settings).sentence


def test_the_ladder_says_where_k_fac_is_worse_than_the_diagonal():
    models = _models((0.4, 7.7, -0.5, 3.2, 1.2, -0.2))
    sentence = ladder_picture(models, [0.5, 0.5]).sentence
    assert "K-FAC loses 0.104" in sentence
    assert "worse here than the bare diagonal" in sentence


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((0, 0, 0, 0, 0, 0, 0.5), "no answer for θ₁ and θ₂"),
        ((0, 1, 0, 0, 1, 0, 0.5), "no answer for θ₁"),
        ((2, 1, 4, 1, 2, -4, 0.5), "tilt cannot be more than √(F₁₁F₂₂) = 1.41"),
        ((1, 1, 1, 1, 1, 1, 0.5), "full Fisher has no answer for θ₁ and θ₂"),
        ((0, 1, 0, 0, 1, 0, 0.5), "K-FAC has one from its damping"),
        ((2, 1, 0, 1, 2, 1, 0), "lands at (3.00, 0.00)"),
        ((2, 1, 0, 1, 2, 1, 1), "lands at (1.00, 2.00)"),
    ],
)
def test_extremes_are_drawn_and_explained(values, told):
    sentence, figure, *_, ladder, _ = drawn(*values, *KEPT)
    assert told in sentence
    for trace in figure.data:
        assert all(math.isfinite(number) for number in (*trace.x, *trace.y)), trace.name
    assert all(math.isfinite(height) for height in ladder.data[0].y)


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, "much", -1])
@pytest.mark.parametrize("place", [0, 6, 7, 8])
def test_values_that_are_none_are_told_and_the_picture_stays(bad, place):
    values = [*EXAMPLE, *KEPT]
    values[place] = bad
    message, *others = drawn(*values)
    assert 'role="alert"' in message
    assert "expected" in message
    assert not any(isinstance(other, go.Figure | str) for other in others)


def test_quality_shows_every_models_cosines_and_the_merge_beside_no_fisher():
    picture = quality_picture(QUALITY)
    traces = {trace.name: list(trace.y) for trace in picture.figure.data}
    assert traces["parity"] == [0.4, 0.8, 1.0]
    assert traces["Fisher merge"] == pytest.approx([80, 81, 82])
    assert traces["isotropic (no Fisher)"] == pytest.approx([72] * 3)
    assert "<img" not in str(list(traces))
    assert "10.0 points above" in picture.sentence
    assert [row[:2] for row in picture.rows] == [(1, 0.8), (2, 0.81), (4, 0.82)]


def test_quality_says_so_where_the_fisher_loses():
    lost = FisherQuality((1, 2), {"a": (0.5, 1.0)}, (0.6, 0.65), 0.7, "test")
    assert "5.0 points below the merge without a Fisher" in quality_picture(lost).sentence


@pytest.mark.parametrize("width_px", [390, 1280])
def test_costs_show_operations_and_seconds_and_say_how_they_were_come_by(width_px):
    picture = cost_picture(COSTS, width_px)
    flops, seconds = picture.figure.data
    assert list(flops.x) == [6e11, 1e10, 2e6, 1e6, 4e6, 16e6]
    assert list(seconds.x) == [20, 1, 0.01, 0.005, 1e-4, 4e-4]
    assert list(seconds.customdata)[2] == "whole merge"
    assert "60 times the operations" in picture.sentence
    assert "one of the ensemble 4" in picture.sentence


@pytest.mark.parametrize(
    ("value", "shown"), [(6.4e11, "640 G"), (4.49e6, "4.49 M"), (1500, "1.5 k"), (53.2, "53"), (0.0123, "0.012")]
)
def test_numbers_are_shown_in_two_or_three_digits(value, shown):
    assert short_number(value) == shown


@pytest.mark.parametrize("what", [learn.QUALITY, learn.COSTS])
def test_what_one_account_has_measured_is_nobody_elses(what, four_result, monkeypatch):
    """Without the preparation nothing is shown; and what is of an account is kept under its name."""
    recipe = replace(four_result.recipe, evaluation=EvaluationSettings())
    values = form_values(recipe, recipe.weights)
    store = Store()
    monkeypatch.setattr(learn, "STORE", store)
    monkeypatch.setattr(learn, "_pictured", lambda what, result, width: [result, None, ""])
    monkeypatch.setitem(learn._MEASURED, learn._key(what, recipe), "measured")
    assert "press “Estimate Fisher”" in learn.opened(what, 1200, *values)[0]
    store.put(recipe, four_result.prepared)
    assert learn.opened(what, 1200, *values)[0] == "measured"
    monkeypatch.setattr(learn, "account", lambda: "alice")
    assert learn.opened(what, 1200, *values)[0] != "measured"


def test_costs_of_rules_without_a_fisher_are_said_not_to_be_there(four_result, monkeypatch):
    recipe = replace(cases.two_tasks(rule="isotropic", compare=()), evaluation=EvaluationSettings())
    store = Store()
    monkeypatch.setattr(learn, "STORE", store)
    store.put(recipe, prepare(recipe))
    values = form_values(recipe, recipe.weights)
    assert any("choose “Fisher merge” as the rule" in str(one) for one in learn.measured(learn.COSTS, 1200, *values))
