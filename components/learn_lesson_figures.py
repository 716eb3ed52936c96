"""The lessons' pictures: a lesson, its numbers and what the reader moved in, a picture with its numbers out."""

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go

from components.figures import _finished, _plain
from components.learn_numbers import POINT, Numbers, final_scores
from components.lessons import DOMAIN, Lesson
from components.picture import Picture
from components.style import COLOURS, TITLES
from merging.diagnostics.uses import GrowingMerge, ShareCurves, mean_of
from merging.metrics import Score, accuracy, mean_accuracy

RULES = {"isotropic": ("isotropic average", "square", "dash"), "fisher": ("Fisher merge", "circle", "solid")}
LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
MOVED = {"symbol": "diamond-open", "size": 20, "line": {"width": 3}}


def lesson_picture(name: str, lesson: Lesson, numbers: Numbers, *, share: float, count: int) -> Picture:
    """The picture of a step by its name, at the reader's λ or number of models."""
    return PICTURES[name](lesson, numbers, share, count)


def growing(lesson: Lesson, numbers: GrowingMerge, share: float, count: int) -> Picture:
    """Accuracy of 1, 2, … models merged or asked together, with intervals where the reader stands."""
    figure, every = go.Figure(), list(range(1, len(numbers.models) + 1))
    count = max(1, min(len(every), count))
    scores = {method: numbers.scores(method) for method in ("isotropic", "fisher", "ensemble")}
    for index, (method, own) in enumerate(scores.items()):
        values = [100 * score.value for score in own]
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [100 * (s.high - s.value) if k == count else 0 for k, s in zip(every, own, strict=True)],
            "arrayminus": [100 * (s.value - s.low) if k == count else 0 for k, s in zip(every, own, strict=True)],
            "width": 6,
        }
        shifted = [k + 0.12 * (index - 1) for k in every]
        trace = _curve(shifted, values, method)
        figure.add_trace(trace.update(error_y=bars, name=TITLES[method]))
    figure.add_vrect(count - 0.25, count + 0.25, fillcolor="rgba(136,136,136,.18)", line_width=0, layer="below")
    figure.update_layout(
        xaxis={"title": "models", "tickvals": every, "fixedrange": True, "range": [0.6, len(every) + 0.4]},
        yaxis={"title": "right on test", "ticksuffix": " %", "fixedrange": True},
        legend=LEGEND,
    )
    here = {method: own[count - 1] for method, own in scores.items()}
    sentence = (
        f"{'One model' if count == 1 else f'The first {count} models'}: isotropic {_percent(here['isotropic'])} %, Fisher {_percent(here['fisher'])} %, output ensemble "
        f"{_percent(here['ensemble'])} %, right on {here['fisher'].n} images."
    )
    columns = ("models", *(TITLES[method] for method in scores))
    rows = [(k, *(scores[method][k - 1].value for method in scores)) for k in every]
    return Picture(_finished(figure, height=380, below=56), sentence, columns, rows)


def all_methods(lesson: Lesson, numbers: GrowingMerge, share: float, count: int) -> Picture:
    """A single model, both merges and the ensemble of all models, with 95 % intervals."""
    scores = {"experts": mean_accuracy(list(numbers.singles))}
    scores |= {method: accuracy(numbers.answers[method][-1]) for method in ("isotropic", "fisher", "ensemble")}
    titles = TITLES | {"experts": "a single model, mean"}
    found = final_scores(numbers)
    best = max(found.values())
    sentence = (
        f"On {len(numbers.singles[0])} test images the best way is right on {100 * best:.1f} %, the worst of the four on "
        f"{100 * min(found.values()):.1f} %."
    )
    return _dots({titles[method]: (method, score) for method, score in scores.items()}, sentence)


def bodies(lesson: Lesson, numbers: ShareCurves, share: float, count: int) -> Picture:
    """The two bodies under the target's head, on the target's validation images."""
    task, scores = lesson.target[0], {}
    names = ("your model", "the domain's body" if lesson.key == DOMAIN else "the donor's body")
    for name, method, own in zip(names, ("fisher", "experts"), numbers.singles["validation"], strict=True):
        scores[name] = (method, accuracy(own[task]))
    (one, (_, first)), (other, (_, second)) = scores.items()
    sentence = (
        f"{one}: {_percent(first)} % of {first.n} validation images; {other} under the same head: {_percent(second)} %."
    )
    return _dots(scores, sentence[:1].upper() + sentence[1:])


def shares(lesson: Lesson, numbers: ShareCurves, share: float, count: int) -> Picture:
    """The target's accuracy on validation over λ, by both rules; dotted what must not suffer."""
    figure, place = go.Figure(), numbers.place(share)
    curves = {rule: numbers.curve(rule, "validation", lesson.target) for rule in RULES}
    for rule, values in curves.items():
        figure.add_trace(_curve(numbers.shares, [100 * value for value in values], rule))
        if lesson.home:
            kept = [100 * value for value in numbers.curve(rule, "validation", lesson.home)]
            line = {"color": COLOURS[rule], "dash": "dot", "width": 2}
            name = f"{RULES[rule][0]}, upright images"
            figure.add_trace(go.Scatter(x=numbers.shares, y=kept, mode="lines", line=line, name=name))
    ensemble = 100 * mean_of(numbers.ensemble["validation"], lesson.target)
    line = {"dash": "longdashdot", "color": COLOURS["ensemble"], "width": 2}
    figure.add_hline(y=ensemble, line=line, name="output ensemble", showlegend=True)
    for rule, values in curves.items():
        figure.add_trace(_moved(numbers.shares[place], 100 * values[place], rule))
    figure.update_layout(
        xaxis={
            "title": lesson.slider_label,
            "range": [-0.03, 1.03],
            "fixedrange": True,
            "tickformat": ".1f",
            "zeroline": False,
        },
        yaxis={"title": "right on validation", "ticksuffix": " %", "zeroline": False, "fixedrange": True},
        legend=LEGEND,
    )
    here = {rule: 100 * values[place] for rule, values in curves.items()}
    where = "rotated images" if lesson.key == DOMAIN else "the target"
    sentence = (
        f"At λ = {numbers.shares[place]:.2f} the Fisher merge is right on {here['fisher']:.1f} % of {where}, the isotropic "
        f"average on {here['isotropic']:.1f} %, the output ensemble on {ensemble:.1f} %."
    )
    rows = [(at, curves["isotropic"][i], curves["fisher"][i]) for i, at in enumerate(numbers.shares)]
    columns = (lesson.slider_label, "isotropic average", "Fisher merge")
    return Picture(_finished(figure, height=420, below=56), sentence, columns, rows, "Accuracy on validation.")


def ends(lesson: Lesson, numbers: ShareCurves, share: float, count: int) -> Picture:
    """The two models alone: accuracy away from home over accuracy at home."""
    points = _end_points(lesson, numbers)
    (one, first), (other, second) = points.items()
    better = one if first[0] > second[0] else other
    sturdier = one if first[1] > second[1] else other
    sentence = f"{better} is better on clean images, {sturdier} on distorted ones."
    figure = _frontier_axes(go.Figure(_end_markers(points)))
    columns, rows = ("model", "clean", "distorted"), [(name, *point) for name, point in points.items()]
    return Picture(_finished(figure, height=420, below=56), sentence[:1].upper() + sentence[1:], columns, rows)


def frontier(lesson: Lesson, numbers: ShareCurves, share: float, count: int) -> Picture:
    """The way of both merges from one model to the other, on validation, and the reader's place on it."""
    points, place, figure = _end_points(lesson, numbers), numbers.place(share), go.Figure()
    home, away = (
        {rule: numbers.curve(rule, "validation", tasks) for rule in RULES} for tasks in (lesson.home, lesson.target)
    )
    for rule in RULES:
        trace = _curve([100 * value for value in home[rule]], [100 * value for value in away[rule]], rule)
        trace.customdata = list(numbers.shares)
        figure.add_trace(trace.update(hovertemplate="λ = %{customdata:.2f}: %{x:.1f} % clean, %{y:.1f} % distorted"))
    both = [100 * mean_of(numbers.ensemble["validation"], tasks) for tasks in (lesson.home, lesson.target)]
    marker = {"symbol": "x", "size": 12, "color": COLOURS["ensemble"]}
    figure.add_trace(go.Scatter(x=[both[0]], y=[both[1]], mode="markers", marker=marker, name="output ensemble"))
    figure.add_traces(_end_markers(points))
    for rule in RULES:
        figure.add_trace(_moved(100 * home[rule][place], 100 * away[rule][place], rule))
    least = 100 * (max(point[0] for point in points.values()) - POINT)
    figure.add_vline(x=least, line={"dash": "dot", "color": "#888"})
    label = {
        "text": "one point given up",
        "x": least,
        "y": 0.02,
        "yref": "paper",
        "showarrow": False,
        "xanchor": "right",
    }
    figure.add_annotation(**label)
    here = {rule: f"{100 * home[rule][place]:.1f} % clean, {100 * away[rule][place]:.1f} % distorted" for rule in RULES}
    sentence = f"At λ = {numbers.shares[place]:.2f}: Fisher {here['fisher']}; isotropic {here['isotropic']}."
    columns = (lesson.slider_label, *(f"{RULES[rule][0]}, {kind}" for rule in RULES for kind in ("clean", "distorted")))
    rows = [
        (at, *(values[i] for rule in RULES for values in (home[rule], away[rule])))
        for i, at in enumerate(numbers.shares)
    ]
    figure = _frontier_axes(figure)
    return Picture(_finished(figure, height=470, below=56), sentence, columns, rows, "Accuracy on validation.")


PICTURES: dict[str, Callable[..., Picture]] = {
    one.__name__: one for one in (growing, all_methods, bodies, shares, ends, frontier)
}


def _curve(x: Sequence[float], y: Sequence[float], method: str) -> go.Scatter:
    name, symbol, dash = RULES.get(method, (TITLES[method], "x", "longdashdot"))
    line, marker = {"color": COLOURS[method], "width": 3, "dash": dash}, {"symbol": symbol, "size": 7}
    return go.Scatter(x=list(x), y=list(y), mode="lines+markers", line=line, marker=marker, name=name)


def _moved(x: float, y: float, rule: str) -> go.Scatter:
    marker = MOVED | {"color": COLOURS[rule]}
    return go.Scatter(x=[x], y=[y], mode="markers", marker=marker, showlegend=False, hoverinfo="skip")


def _dots(scores: Mapping[str, tuple[str, Score]], sentence: str) -> Picture:
    figure = go.Figure()
    for name, (method, score) in scores.items():
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [100 * (score.high - score.value)],
            "arrayminus": [100 * (score.value - score.low)],
            "width": 8,
        }
        marker = {"color": COLOURS[method], "size": 14, "symbol": RULES.get(method, ("", "diamond"))[1]}
        values = {"x": [100 * score.value], "y": [_plain(name)], "text": [f"{100 * score.value:.1f} %"]}
        figure.add_trace(
            go.Scatter(**values, mode="markers+text", textposition="top center", marker=marker, error_x=bars, name=name)
        )
    figure.update_layout(
        showlegend=False,
        xaxis={"ticksuffix": " %", "fixedrange": True, "title": "right, with 95 % intervals"},
        yaxis={"range": [len(scores) - 0.4, -0.7], "fixedrange": True, "automargin": True},
    )
    rows = [(name, score.value, score.low, score.high, score.n) for name, (_, score) in scores.items()]
    columns = ("", "accuracy", "95 % from", "to", "images")
    return Picture(_finished(figure, height=130 + 60 * len(scores), below=56), sentence, columns, rows)


def _end_points(lesson: Lesson, numbers: ShareCurves) -> dict[str, tuple[float, float]]:
    return {
        name: (mean_of(own, lesson.home), mean_of(own, lesson.target))
        for name, own in zip(numbers.models, numbers.singles["validation"], strict=True)
    }


def _end_markers(points: Mapping[str, tuple[float, float]]) -> list[go.Scatter]:
    styles = {"color": "#999", "size": 16, "line": {"width": 2, "color": "#444"}}
    return [
        go.Scatter(
            x=[100 * home],
            y=[100 * away],
            mode="markers+text",
            text=[_plain(name)],
            textposition="bottom center",
            marker=styles,
            showlegend=False,
            name=name,
        )
        for name, (home, away) in points.items()
    ]


def _frontier_axes(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        xaxis={"title": "right on clean images", "ticksuffix": " %", "fixedrange": True},
        yaxis={"title": "right on distorted images", "ticksuffix": " %", "fixedrange": True},
        legend=LEGEND,
    )
    return figure


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f}"
