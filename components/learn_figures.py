"""The Learn tab's own pictures: two Gaussians, the quality of a Fisher, what everything costs."""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.figures import NARROW_PX, _finished, _plain
from components.picture import Picture
from components.style import COLOURS, MODEL_COLOURS, PATTERNS
from merging.diagnostics.costs import Cost, Costs
from merging.diagnostics.gaussians import Gaussian, Optimum, ellipse, loss_at, optima, total_fisher
from merging.diagnostics.quality import FisherQuality
from merging.merge import normalised_weights

# T2's two models and three optima lie well inside.
X_RANGE, Y_RANGE = (-1.5, 5.5), (-2.5, 4.5)
LEVELS = (0.5, 2.0)
REACH = 20.0
MODEL_STYLES = (("#E69F00", "solid", "circle"), ("#CC79A7", "dash", "circle-open"))
RULE_STYLES = {
    "isotropic": ("isotropic", COLOURS["isotropic"], "square"),
    "diagonal": ("diagonal Fisher", COLOURS["fisher"], "diamond"),
    "full": ("full Fisher", COLOURS["ensemble"], "star"),
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "pentagon")


def gaussians_picture(models: Sequence[Gaussian], weights: Sequence[float]) -> Picture:
    """Both models' ellipses, the three optima, and dotted through each optimum all points of the same loss."""
    found, lambdas = optima(models, weights), normalised_weights(weights, count=len(models))
    figure = go.Figure()
    total = len(models) * total_fisher(models, lambdas)
    least = found["full"]
    for rule in ("diagonal", "isotropic"):
        gap = found[rule].loss - least.loss
        if gap > 1e-9 and not least.unanswered:
            points = ellipse(least.point, total, gap, reach=REACH)
            line = {"color": "#888", "width": 1, "dash": "dot"}
            figure.add_trace(_line(points, line, f"same loss: {found[rule].loss:.3g}"))
    for index, model in enumerate(models):
        colour, dash, symbol = MODEL_STYLES[index]
        for level in LEVELS:
            points = ellipse(model.centre, model.fisher, level, reach=REACH)
            figure.add_trace(_line(points, {"color": colour, "width": 2, "dash": dash}, f"model {index + 1}"))
        figure.add_trace(
            _marker(f"model {index + 1}", model.centre, colour, symbol, loss_at(models, lambdas, model.centre))
        )
    for rule, (name, colour, symbol) in RULE_STYLES.items():
        figure.add_trace(_marker(name, found[rule].point, colour, symbol, found[rule].loss, size=15))
    axis = {"zeroline": False, "fixedrange": True, "constrain": "domain"}
    figure.update_layout(
        xaxis={**axis, "range": X_RANGE, "title": "θ₁", "dtick": 1},
        yaxis={**axis, "range": Y_RANGE, "title": "θ₂", "dtick": 1, "scaleanchor": "x"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
    )
    rows = [(RULE_STYLES[rule][0], *own.point, own.loss, _silent(own) or "–") for rule, own in found.items()]
    columns = ("rule", "θ₁", "θ₂", "loss", "no answer for")
    return Picture(_finished(figure, height=470, below=56), _gaussian_sentence(models, found), columns, rows)


def _line(points, line: Mapping[str, object], name: str) -> go.Scatter:
    x, y = points[:, 0], points[:, 1]
    return go.Scatter(x=x, y=y, mode="lines", line=line, name=name, showlegend=False, hoverinfo="name")


def _marker(name: str, point: Sequence[float], colour: str, symbol: str, loss: float, size: int = 10) -> go.Scatter:
    return go.Scatter(
        x=[point[0]],
        y=[point[1]],
        mode="markers",
        name=name,
        marker={"color": colour, "size": size, "symbol": symbol, "line": {"width": 1.5, "color": "#444"}},
        hovertemplate=f"{name}: (%{{x:.3f}}, %{{y:.3f}})<br>loss {loss:.4g}<extra></extra>",
    )


def _silent(own: Optimum) -> str:
    return " and ".join(f"θ{'₁₂'[index - 1]}" for index in own.unanswered)


def _gaussian_sentence(models: Sequence[Gaussian], found: Mapping[str, Optimum]) -> str:
    parts = [
        f"{RULE_STYLES[rule][0]} lands at ({found[rule].point[0]:.2f}, {found[rule].point[1]:.2f}) with a loss of "
        f"{found[rule].loss:.2f}"
        for rule in ("full", "diagonal", "isotropic")
    ]
    text = f"The {parts[0]}, the least there is; {parts[1]}; {parts[2]}."
    for number, model in enumerate(models, start=1):
        if abs(model.tilt) > model.largest_tilt + 1e-9:
            text += (
                f" Model {number}'s tilt cannot be more than √(F₁₁F₂₂) = {model.largest_tilt:.2f}, which the picture uses: "
                "there its ellipse is a line, and along it the model does not care."
            )
    for rule in ("diagonal", "full"):
        if found[rule].unanswered:
            text += (
                f" The {RULE_STYLES[rule][0]} has no answer for {_silent(found[rule])}: no model's data say anything there. "
                "A merge then takes the plain mean."
            )
    return text


def formula_html(models: Sequence[Gaussian], weights: Sequence[float], point: Sequence[float]) -> str:
    """θ*ⱼ = Σ λᵢFᵢⱼθᵢⱼ / Σ λᵢFᵢⱼ with the numbers of both coordinates filled in."""
    lambdas = normalised_weights(weights, count=len(models))
    lines = []
    for axis, name in enumerate("₁₂"):
        diagonal = [model.fisher[axis, axis] for model in models]
        above = " + ".join(
            f"{w:.2g}·{f:.3g}·{model.centre[axis]:g}" for w, f, model in zip(lambdas, diagonal, models, strict=True)
        )
        below = " + ".join(f"{w:.2g}·{f:.3g}" for w, f in zip(lambdas, diagonal, strict=True))
        has_answer = sum(w * f for w, f in zip(lambdas, diagonal, strict=True)) > 0
        end = f"{point[axis]:.4f}" if has_answer else "no answer (0/0): the mean, " + f"{point[axis]:.4f}"
        lines.append(
            f'<div class="studio-formula">θ*{name} = <span class="fraction"><span>{above}</span><span>{below}</span>'
            f"</span> = <b>{end}</b></div>"
        )
    caption = "λ · F · θ of each model, for each parameter by itself: this is the diagonal Fisher merge."
    return f'{"".join(lines)}<p class="studio-source">{caption}</p>'


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
