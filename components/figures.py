"""Pictures: data in, Plotly figures out.

The picture that follows the sliders is written in Plotly's schema as plain dictionaries: building and checking it as an
object takes longer than the merge. Tests check it.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import plotly.graph_objects as go
import plotly.io

from components.style import COLOURS, MODEL_COLOURS, PATTERNS, TITLES, ordered
from merging.metrics import Score

# Below this the page is a phone's: no numbers on bars, one heatmap beside the other no more.
NARROW_PX = 700
MEAN = "<b>mean</b>"
SCORE_TICKS = [0, 20, 40, 60, 80, 100]
# Plotly adds no suffix to ticks that are named.
SCORE_AXIS = {
    "range": [0, 108],
    "tickvals": SCORE_TICKS,
    "ticktext": [f"{tick} %" for tick in SCORE_TICKS],
    "fixedrange": True,
}
SCORE_HEIGHT_PX = 400
# Bars of more methods are too narrow for numbers; on a phone each takes a line of the legend.
MOST_NUMBERED, LEGEND_LINE_PX = 6, 20
SCORE_LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}


@cache
def empty_score_figure() -> go.Figure:
    """Axes without bars, for the time before the first merge: the browser loads Plotly meanwhile."""
    figure = go.Figure()
    figure.update_layout(
        yaxis=SCORE_AXIS,
        xaxis={"visible": False, "range": [0, 1]},
        annotations=[{"text": "merging …", "x": 0.5, "y": 50, "showarrow": False, "font": {"size": 16}}],
    )
    return _finished(figure, height=SCORE_HEIGHT_PX, below=36)


def score_figure(
    scores: Mapping[str, dict[str, Score]], singles: Mapping[str, dict[str, Score]], width_px: int
) -> dict[str, object]:
    """Bars per task: the experts, each rule, the output ensemble, with 95 % intervals.

    A figure in Plotly's schema. Where several models can do a task with their own heads, each has a bar of its own in
    place of the experts' mean.
    """
    tasks = list(next(iter(scores.values())))
    several = {name: own for name, own in singles.items() if own}
    shared = any(sum(task in own for own in several.values()) > 1 for task in tasks)
    series = []
    if shared:
        for index, (name, own) in enumerate(several.items()):
            shade = 150 + (70 * index) // max(len(several), 1)
            series.append((name, own, f"rgb({shade},{shade},{shade})", ""))
    elif "experts" in scores:
        series.append((TITLES["experts"], scores["experts"], COLOURS["experts"], PATTERNS["experts"]))
    for method in ordered(scores):
        if method != "experts":
            series.append((TITLES[method], scores[method], COLOURS[method], PATTERNS[method]))
    narrow = width_px < NARROW_PX
    has_numbers = not narrow and len(series) <= MOST_NUMBERED
    layout = {
        "barmode": "group",
        "bargap": 0.22,
        "bargroupgap": 0.06,
        "yaxis": SCORE_AXIS,
        "xaxis": {"fixedrange": True, "tickfont": {"size": 13}, "automargin": True},
        "legend": SCORE_LEGEND,
        "template": _no_template(),
        **_frame(SCORE_HEIGHT_PX + legend_px(len(series), width_px), below=36),
    }
    if len(tasks) > 1:
        # The means stand apart.
        line = {"width": 1, "dash": "dot", "color": "#888"}
        place = {"x0": len(tasks) - 0.5, "x1": len(tasks) - 0.5, "xref": "x", "y0": 0, "y1": 1, "yref": "y domain"}
        layout["shapes"] = [{"type": "line", "line": line, **place}]
    return {"data": [_bars(name, own, tasks, *look, has_numbers) for name, own, *look in series], "layout": layout}


def legend_px(entries: int, width_px: float) -> int:
    """What a legend takes beyond a few lines: on a phone every entry has a line of its own."""
    return LEGEND_LINE_PX * max(0, entries - 4) if width_px < NARROW_PX else 0


@cache
def _no_template() -> dict[str, object]:
    return plotly.io.templates["none"].to_plotly_json()


def _bars(
    name: str, scores: Mapping[str, Score], tasks: Sequence[str], colour: str, pattern: str, has_numbers: bool
) -> dict[str, object]:
    own = [scores.get(task) for task in tasks]
    values = [None if score is None else 100 * score.value for score in own]
    above = [0.0 if score is None else 100 * (score.high - score.value) for score in own]
    below = [0.0 if score is None else 100 * (score.value - score.low) for score in own]
    hover, groups = [_interval_text(score) for score in own], [_plain(task) for task in tasks]
    if len(tasks) > 1:
        values.append(None if None in values else sum(values) / len(values))
        above, below, groups = [*above, 0.0], [*below, 0.0], [*groups, MEAN]
        hover.append("mean over the tasks")
    numbers = {} if not has_numbers else {"text": ["" if value is None else f"{value:.0f}" for value in values]}
    interval = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return {
        "type": "bar",
        "name": _plain(name),
        "x": groups,
        "y": values,
        **numbers,
        "textposition": "inside",
        "insidetextanchor": "start",
        "textangle": 0,
        "textfont": {"color": "#111", "size": 12},
        "marker": {
            "color": colour,
            "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "rgba(0,0,0,.4)", "size": 7},
        },
        "error_y": {**interval, "thickness": 1.2, "width": 3},
        "hovertext": hover,
        "hovertemplate": "%{x}: <b>%{y:.1f} %</b><br>%{hovertext}<extra>%{fullData.name}</extra>",
    }


def compared_figure(scores: dict[str, list[Score]], tasks: Sequence[str]) -> go.Figure:
    """Bars of two merges by task, with 95 % intervals."""
    bars = [
        _bars(name, dict(zip(tasks, own, strict=True)), tasks, colour, pattern, has_numbers=False)
        for (name, own), colour, pattern in zip(scores.items(), MODEL_COLOURS, ("", "/"), strict=False)
    ]
    figure = go.Figure(bars)
    figure.update_layout(
        barmode="group",
        yaxis=SCORE_AXIS,
        xaxis={"fixedrange": True, "automargin": True},
        legend=SCORE_LEGEND,
    )
    return _finished(figure, height=320, below=36)


def _interval_text(score: Score | None) -> str:
    return "" if score is None else f"95 %: {100 * score.low:.1f} to {100 * score.high:.1f}, {score.n} examples"


def _plain(text: str) -> str:
    """Plotly reads a little HTML in its texts; names of models and tensors must not be read as such."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _finished(figure: go.Figure, *, height: int, below: int = 70) -> go.Figure:
    figure.update_layout(template="none", **_frame(height, below))
    return figure


def _frame(height: int, below: int) -> dict[str, object]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": height,
        "margin": {"l": 82, "r": 16, "t": 40, "b": below},
        "font": {"size": 12},
        "uirevision": "keep",
        "hoverlabel": {"bgcolor": "#222", "font": {"color": "#fff"}},
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": "#808890",
            "activecolor": "#808890",
            "remove": ["zoom", "pan", "select", "lasso", "autoScale", "resetScale", "zoomIn", "zoomOut"],
        },
    }
