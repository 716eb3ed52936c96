"""The Learn tab's measurements: the quality of a Fisher, what everything costs."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.figures import NARROW_PX, _finished, _plain
from components.picture import Picture
from components.style import COLOURS, MODEL_COLOURS, PATTERNS
from merging.diagnostics.costs import Cost, Costs
from merging.diagnostics.quality import FisherQuality

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "pentagon")


def quality_picture(quality: FisherQuality) -> Picture:
    """Above: how like each Fisher is to that of all examples; below: the merge with it. The number of examples doubles."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    counts = list(quality.counts)
    for index, (name, cosines) in enumerate(quality.cosines.items()):
        style = {"color": MODEL_COLOURS[index % 8], "dash": DASHES[index % 8], "width": 2}
        marker = {"symbol": SYMBOLS[index % 8], "size": 7}
        trace = go.Scatter(
            x=counts, y=list(cosines), name=_plain(name), mode="lines+markers", line=style, marker=marker
        )
        figure.add_trace(trace, row=1, col=1)
    percent = [100 * value for value in quality.accuracies]
    fisher = {"color": COLOURS["fisher"], "width": 3}
    figure.add_trace(
        go.Scatter(x=counts, y=percent, name="Fisher merge", mode="lines+markers", line=fisher), row=2, col=1
    )
    plain = {"color": COLOURS["isotropic"], "width": 2, "dash": "dash"}
    flat = [100 * quality.isotropic] * len(counts)
    figure.add_trace(go.Scatter(x=counts, y=flat, name="isotropic (no Fisher)", mode="lines", line=plain), row=2, col=1)
    figure.update_xaxes(type="log", tickvals=counts, ticktext=[str(count) for count in counts], fixedrange=True)
    figure.update_xaxes(title="examples per model", row=2, col=1)
    figure.update_yaxes(fixedrange=True)
    figure.update_yaxes(title="cosine to the last", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="mean accuracy", ticksuffix=" %", row=2, col=1)
    figure.update_layout(legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0})
    first = [cosines[0] for cosines in quality.cosines.values()]
    gap = 100 * (quality.accuracies[-1] - quality.isotropic)
    sentence = (
        f"With one example a Fisher's cosine to that of {counts[-1]} is {min(first):.2f} to {max(first):.2f}. The merge is "
        f"right on {percent[0]:.1f} % of the {quality.split} split on average with one example, on {percent[-1]:.1f} % with "
        f"{counts[-1]}: {abs(gap):.1f} points {'above' if gap >= 0 else 'below'} the merge without a Fisher."
    )
    rows = [
        (count, quality.accuracies[place], *(own[place] for own in quality.cosines.values()))
        for place, count in enumerate(counts)
    ]
    columns = ("examples", "mean accuracy", *(f"cosine, {name}" for name in quality.cosines))
    caption = f"Isotropic, without a Fisher: {quality.isotropic:.4f}."
    return Picture(_finished(figure, height=560, below=56), sentence, columns, rows, caption)


def cost_picture(costs: Costs, width_px: float) -> Picture:
    """Operations and seconds of each piece of work, on logarithmic axes: every line is ten times the last."""
    narrow = width_px < NARROW_PX
    places = {"rows": 2, "cols": 1} if narrow else {"rows": 1, "cols": 2}
    titles = ["operations (FLOPs)", "seconds, here"]
    figure = make_subplots(**places, subplot_titles=titles, shared_yaxes=not narrow, horizontal_spacing=0.06)
    every = [*costs.work, *costs.each_input]
    names = [*(cost.name for cost in costs.work), *(f"an answer: {cost.name}" for cost in costs.each_input)]
    for index, unit in enumerate(("flops", "seconds")):
        values = [getattr(cost, unit) for cost in every]
        bars = go.Bar(
            x=values,
            y=names,
            orientation="h",
            text=[short_number(value) for value in values],
            textposition="outside",
            cliponaxis=False,
            marker=_cost_marker(every),
            showlegend=False,
            customdata=[getattr(cost, f"{unit}_from") for cost in every],
            hovertemplate="%{y}: %{text}<br>%{customdata}<extra></extra>",
        )
        figure.add_trace(bars, row=index + 1 if narrow else 1, col=1 if narrow else index + 1)
        # Room for the numbers behind the bars: a fifth of the axis, a third on a phone.
        low, high = math.log10(min(values)) - 0.3, math.log10(max(values))
        room = (high - low) * (0.5 if narrow else 0.2)
        axis = {"type": "log", "fixedrange": True, "exponentformat": "power", "dtick": 2, "range": [low, high + room]}
        figure.update_xaxes(axis, row=index + 1 if narrow else 1, col=1 if narrow else index + 1)
    figure.update_yaxes(autorange="reversed", fixedrange=True, automargin=True)
    columns = ("work", "FLOPs", "how", "seconds", "how")
    rows = [
        (name, cost.flops, cost.flops_from, cost.seconds, cost.seconds_from)
        for name, cost in zip(names, every, strict=True)
    ]
    height = 620 if narrow else 380
    return Picture(_finished(figure, height=height, below=40), cost_sentence(costs), columns, rows)


def _cost_marker(every: Sequence[Cost]) -> dict[str, object]:
    styles = {"fine-tuning": "experts", "Fisher": "fisher", "Fisher merge": "fisher", "isotropic merge": "isotropic"}
    styles |= {"the merge": "fisher", "the ensemble": "ensemble"}
    chosen = [styles[cost.name] for cost in every]
    pattern = {
        "shape": [PATTERNS[style] for style in chosen],
        "fillmode": "overlay",
        "fgcolor": "rgba(0,0,0,.4)",
        "size": 7,
    }
    return {"color": [COLOURS[style] for style in chosen], "pattern": pattern}


def cost_sentence(costs: Costs) -> str:
    """The ratios in words."""
    cost = {own.name: own for own in costs.work}
    training, fisher, merge = cost["fine-tuning"], cost["Fisher"], cost["Fisher merge"]
    return (
        f"Fine-tuning the {costs.models} models ({costs.epochs} epochs over {costs.rows} rows) takes "
        f"{training.flops / fisher.flops:,.0f} times the operations of their Fishers ({costs.fisher_examples} "
        f"examples), and those {fisher.flops / merge.flops:,.0f} times the merge's. "
        f"After that an answer of the merge costs one forward pass, one of the ensemble {costs.models}."
    )


def short_number(value: float) -> str:
    """Two or three digits: 4.5 M, 0.037, 640 G."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
