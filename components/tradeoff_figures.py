"""The picture of score against cost: every chosen method a point, the front a line. Data in, pictures out."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from components.figures import NARROW_PX, _finished
from components.picture import Picture
from components.style import COLOURS, SYMBOLS, TITLES
from merging.diagnostics import Tradeoff, front

COST_TITLES = {"seconds": "time", "memory_bytes": "memory", "examples": "Fisher examples"}
AXES = {
    "seconds": "time of the estimates and the merge",
    "memory_bytes": "memory beside the models",
    "examples": "examples that the estimates read",
}
NOTHING = {"seconds": "no time", "memory_bytes": "no more memory", "examples": "no examples"}
# Zero has no place on a logarithmic axis: it stands this many powers of ten before the least cost.
BEFORE = 0.8
UNITS = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B"))


def tradeoff_picture(points: Sequence[Tradeoff], kind: str, *, own: str, split: str, width_px: int) -> Picture:
    """Mean score over one of the costs, on a logarithmic axis with a place for zero; `own` is the page's rule."""
    merges = [point for point in points if point.is_merge]
    best = [merges[index] for index in front([(point.cost(kind), point.score) for point in merges])]
    place, ticks = _axis([point.cost(kind) for point in points], kind)
    figure, narrow = go.Figure(), width_px < NARROW_PX
    figure.add_trace(_front_line(best, kind, place))
    for point in points:
        named = not narrow and (point in best or point.method == own)
        figure.add_trace(_marker(point, kind, place(point.cost(kind)), is_own=point.method == own, is_named=named))
    if ticks["zero"] is not None:
        line = {"width": 1, "dash": "dot", "color": "#888"}
        figure.add_vline(x=ticks["zero"] + BEFORE / 2, line=line)
    figure.update_xaxes(
        title=COST_TITLES[kind] if narrow else AXES[kind],
        tickvals=ticks["at"],
        ticktext=ticks["text"],
        range=ticks["range"],
        fixedrange=True,
        zeroline=False,
    )
    figure.update_yaxes(title={"text": "mean accuracy", "standoff": 10}, ticksuffix=" %", fixedrange=True)
    lines = len(points) + 1 if narrow else -(-(len(points) + 1) // 6)  # a phone has room for one entry in a line
    legend = {"orientation": "h", "yanchor": "top", "y": -0.28 if narrow else -0.2, "x": 0}
    figure.update_layout(legend=legend, hovermode="closest")
    columns = (
        "method",
        "mean, %",
        *(f"{COST_TITLES[cost]}{unit}" for cost, unit in _COLUMNS),
        "on the front",
        "models",
    )
    rows = [
        (
            TITLES[point.method],
            100 * point.score,
            *(point.cost(cost) if cost == "seconds" else int(point.cost(cost)) for cost, _ in _COLUMNS),
            "yes" if point in best else "no" if point.is_merge else None,
            point.models,
        )
        for point in points
    ]
    caption = (
        f"Mean accuracy on {split}. Time: the estimates, when they were made, and this merge. Memory: what the merge reads beside "
        "the models (Fishers, Kronecker factors, the base). Models: what is kept for predicting."
    )
    finished = _finished(figure, height=380 + 22 * lines, below=80 + 22 * lines)
    return Picture(finished, tradeoff_sentence(points, best, kind), columns, rows, caption)


_COLUMNS = (("seconds", ", s"), ("memory_bytes", ", bytes"), ("examples", ""))


def tradeoff_sentence(points: Sequence[Tradeoff], best: Sequence[Tradeoff], kind: str) -> str:
    """The front in words, from cheap to dear, and what keeping all models gives."""
    steps = [
        f"{TITLES[point.method]} {100 * point.score:.1f} % ({cost_text(point.cost(kind), kind)})" for point in best
    ]
    others = sum(point.is_merge for point in points) - len(best)
    if len(best) == 1:
        text = (
            f"By {COST_TITLES[kind]} one rule is enough: {steps[0]}; no other that was chosen gives more or takes less"
        )
    else:
        text = f"By {COST_TITLES[kind]}, from cheap to dear: {', then '.join(steps)}"
        if others:
            text += f"; the {'other one is' if others == 1 else f'other {others} are'} no better than one that takes no more"
    kept = [f"{TITLES[point.method]} {100 * point.score:.1f} %" for point in points if not point.is_merge]
    if kept:
        count = next(point.models for point in points if not point.is_merge)
        text += f". Without a merge all {count} models are kept: {', '.join(kept)}"
    return f"{text}."


def cost_text(value: float, kind: str) -> str:
    """A cost with its unit."""
    if value == 0:
        return NOTHING[kind]
    if kind == "seconds":
        return f"{value:.2g} s" if value < 10 else f"{value:,.0f} s"
    if kind == "memory_bytes":
        size, unit = next(own for own in UNITS if value >= 0.9995 * own[0] or own[0] == 1)
        return f"{value / size:.3g}{unit}"
    return f"{value:,.0f} example{'' if value == 1 else 's'}"


def _axis(costs: Sequence[float], kind: str) -> tuple[object, dict[str, object]]:
    """Where a cost stands, and the ticks: 1, 10, 100, and 0 before them where something costs nothing."""
    some = [math.log10(cost) for cost in costs if cost > 0] or [0.0]
    low, high = min(some), max(some)
    zero = low - BEFORE if min(costs, default=0) <= 0 else None
    powers = list(range(math.ceil(low - 0.35), math.floor(high + 0.35) + 1))
    if len(powers) < 2:  # a narrow range has ticks of its own
        powers = sorted({low, high})
    at = [*([zero] if zero is not None else []), *powers]
    text = [*(["0"] if zero is not None else []), *(_tick(10.0**power, kind) for power in powers)]
    left = (low if zero is None else zero) - 0.3

    def place(cost: float) -> float:
        return math.log10(cost) if cost > 0 else float(zero or 0.0)

    return place, {"at": at, "text": text, "zero": zero, "range": [left, high + 0.4]}


def _tick(value: float, kind: str) -> str:
    return cost_text(value, kind).removesuffix(" example").removesuffix(" examples")


def _front_line(best: Sequence[Tradeoff], kind: str, place: object) -> go.Scatter:
    """Steps: what the cheapest rule gives holds until the next better one."""
    return go.Scatter(
        x=[place(point.cost(kind)) for point in best],
        y=[100 * point.score for point in best],
        mode="lines",
        line={"shape": "hv", "width": 2, "dash": "dot", "color": "#888"},
        name="front",
        hoverinfo="skip",
    )


def _marker(point: Tradeoff, kind: str, x: float, *, is_own: bool, is_named: bool) -> go.Scatter:
    symbol = SYMBOLS[point.method] + ("" if point.is_merge else "-open")
    edge = {"width": 2.5 if is_own else 1, "color": "#111" if point.is_merge else COLOURS[point.method]}
    told = [cost_text(point.cost(cost), cost) for cost in COST_TITLES]
    kept = "" if point.is_merge else f"<br>keeps {point.models} models"
    return go.Scatter(
        x=[x],
        y=[100 * point.score],
        mode="markers+text" if is_named else "markers",
        text=[TITLES[point.method]],
        textposition="top left",
        name=TITLES[point.method],
        marker={"symbol": symbol, "size": 17 if is_own else 13, "color": COLOURS[point.method], "line": edge},
        customdata=[told],
        hovertemplate="<b>%{y:.1f} %</b><br>%{customdata[0]}, %{customdata[1]}, %{customdata[2]}"
        f"{kept}<extra>{TITLES[point.method]}</extra>",
    )
