"""The Learn tab's two Gaussians: where each rule lands, the ladder of what each of them gains, and the formulas."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from components.figures import _finished
from components.picture import Picture
from components.style import COLOURS, PATTERNS
from merging.diagnostics.gaussians import (
    Gaussian,
    Optimum,
    Step,
    ellipse,
    kept_fisher,
    ladder,
    loss_at,
    optima,
    total_fisher,
)
from merging.rules.settings import DEFAULTS, LEAST_DAMPING, RuleSettings
from merging.weights import normalised_weights

# T2's two models and its optima lie well inside.
X_RANGE, Y_RANGE = (-1.5, 5.5), (-2.5, 4.5)
LEVELS = (0.5, 2.0)
REACH = 20.0
# Of the losses: what is less is rounding, or a damping that stands for none.
NOTHING = 1e-5
MODEL_STYLES = (("#E69F00", "solid", "circle"), ("#CC79A7", "dash", "circle-open"))
# Title, title under a bar, key of the colour and of the bar's pattern, symbol.
RULE_STYLES = {
    "isotropic": ("isotropic", "isotropic", "isotropic", "square"),
    "diagonal": ("diagonal Fisher", "diagonal", "fisher", "diamond"),
    "kfac": ("K-FAC", "K-FAC", "kfac", "triangle-up"),
    "full": ("full Fisher", "full", "ensemble", "star"),
}
MATRIX = (
    "display:inline-grid;grid-template-columns:auto auto;gap:0 .7em;padding:0 .4em;vertical-align:middle;"
    "border:solid currentColor;border-width:0 1.5px;border-radius:.5em"
)
OUTLINE = "#777"  # told from the page's ground, light and dark, where a colour is not


def gaussians_picture(
    models: Sequence[Gaussian], weights: Sequence[float], settings: RuleSettings = DEFAULTS
) -> Picture:
    """Both models' ellipses, the four optima, and dotted through each optimum all points of the same loss."""
    found, lambdas = optima(models, weights, settings), normalised_weights(weights, count=len(models))
    figure = go.Figure()
    total = len(models) * total_fisher(models, lambdas)
    least = found["full"]
    for rule in ("kfac", "diagonal", "isotropic"):
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
    for rule, (name, _, colour, symbol) in RULE_STYLES.items():
        figure.add_trace(_marker(name, found[rule].point, COLOURS[colour], symbol, found[rule].loss, size=15))
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
        marker={"color": colour, "size": size, "symbol": symbol, "line": {"width": 1.5, "color": OUTLINE}},
        hovertemplate=f"{name}: (%{{x:.3f}}, %{{y:.3f}})<br>loss {loss:.4g}<extra></extra>",
    )


def _silent(own: Optimum) -> str:
    return " and ".join(f"θ{'₁₂'[index - 1]}" for index in own.unanswered)


def _gaussian_sentence(models: Sequence[Gaussian], found: Mapping[str, Optimum]) -> str:
    parts = [
        f"{RULE_STYLES[rule][0]} lands at ({found[rule].point[0]:.2f}, {found[rule].point[1]:.2f}) with a loss of "
        f"{max(found[rule].loss, 0.0):.2f}"
        for rule in ("full", "kfac", "diagonal", "isotropic")
    ]
    text = f"The {parts[0]}, the least there is; {'; '.join(parts[1:])}."
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
    if found["full"].unanswered and not found["kfac"].unanswered:
        text += " K-FAC has one from its damping, which lends each model some precision in every direction."
    return text


def ladder_picture(models: Sequence[Gaussian], weights: Sequence[float], settings: RuleSettings = DEFAULTS) -> Picture:
    """What each rule loses above the least there is, as four steps down: isotropic, diagonal, K-FAC, full."""
    steps = ladder(optima(models, weights, settings))
    styles = [RULE_STYLES[step.rule] for step in steps]
    heights = [step.excess for step in steps]
    pattern = {"fillmode": "overlay", "fgcolor": "rgba(0,0,0,.4)", "size": 7}
    bars = go.Bar(
        x=[short for _, short, *_ in styles],
        y=heights,
        text=[_amount(height) for height in heights],
        textposition="outside",
        cliponaxis=False,
        marker={
            "color": [COLOURS[key] for *_, key, _ in styles],
            "pattern": {**pattern, "shape": [PATTERNS[key] for *_, key, _ in styles]},
            "line": {"width": 1, "color": OUTLINE},
        },
        customdata=[name for name, *_ in styles],
        hovertemplate="%{customdata}: %{y:.4g} above the least loss<extra></extra>",
        showlegend=False,
    )
    figure = go.Figure(bars)
    # Room for the numbers over the bars; without a loss, the axis of a loss of 1.
    tallest = max(heights)
    top = 1.2 * tallest if tallest > NOTHING else 1.0
    figure.update_xaxes(fixedrange=True, tickangle=0)
    figure.update_yaxes(fixedrange=True, range=[0, top], nticks=5, title="loss above the least")
    columns = ("rule", "loss above the least", "gained by this step")
    rows = [(name, step.excess, step.gained) for (name, *_), step in zip(styles, steps, strict=True)]
    sentence = _ladder_sentence(models, steps, settings)
    return Picture(_finished(figure, height=250, below=36), sentence, columns, rows)


def _ladder_sentence(models: Sequence[Gaussian], steps: Sequence[Step], settings: RuleSettings) -> str:
    start = steps[0].excess
    if all(step.excess <= NOTHING for step in steps):
        return "The ladder: all four rules land at the least loss that there is, so that no step gains anything here."
    names = {"diagonal": "the diagonal", "kfac": "K-FAC", "full": "the full Fisher"}
    told = ", ".join(f"{names[step.rule]} {_gain(step.gained)}" for step in steps[1:])
    above = f"stands {_amount(start)} above the least loss" if start > NOTHING else "already has the least loss"
    return f"The ladder: isotropic merging {above}; from there {told}{_reason(models, steps, settings)}."


def _gain(gained: float) -> str:
    if abs(gained) <= NOTHING:
        return "gains nothing"
    return f"{'gains' if gained > 0 else 'loses'} {_amount(abs(gained))}"


def _reason(models: Sequence[Gaussian], steps: Sequence[Step], settings: RuleSettings) -> str:
    """Why a step brings nothing, or less than that."""
    _, diagonal, kfac, _ = steps
    if all(model.fisher[0, 1] == 0 for model in models):
        damped = ", and K-FAC loses by its damping alone" if kfac.gained < -NOTHING else ""
        return f": no precision is tilted, so that the diagonal is the full Fisher already{damped}"
    reasons = []
    if diagonal.gained < -NOTHING:
        reasons.append("the diagonal leaves the tilts out, which is worse here than to leave the Fisher out")
    if kfac.gained < -NOTHING:
        reasons.append("what K-FAC keeps of the tilts and adds as damping is worse here than the bare diagonal")
    elif settings.damping <= LEAST_DAMPING and settings.shrinkage in (0, 1):
        # A layer of one output: its Fisher is A, of which K-FAC then keeps all or the diagonal.
        kept = ("no", "the diagonal") if settings.shrinkage == 0 else ("all", "the full Fisher")
        reasons.append(f"with {kept[0]} off-diagonals kept and no damping K-FAC is {kept[1]} of such a layer")
    return f": {'; '.join(reasons)}" if reasons else ""


def _amount(value: float) -> str:
    return f"{value:.3g}" if value > NOTHING else "0"


def formula_html(models: Sequence[Gaussian], weights: Sequence[float], settings: RuleSettings = DEFAULTS) -> str:
    """θ*ⱼ = Σ λᵢFᵢⱼθᵢⱼ / Σ λᵢFᵢⱼ with the numbers of both coordinates filled in; then K-FAC's matrices."""
    lambdas, found = normalised_weights(weights, count=len(models)), optima(models, weights, settings)
    point = found["diagonal"].point
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
    return f'{"".join(lines)}<p class="studio-source">{caption}</p>{_kfac_html(models, found["kfac"], settings)}'


def _kfac_html(models: Sequence[Gaussian], own: Optimum, settings: RuleSettings) -> str:
    matrices = ""
    for name, model in zip("₁₂", models, strict=True):
        cells = "".join(f"<span>{number:.3g}</span>".replace("-", "−") for number in kept_fisher(model, settings).flat)
        matrices += f' <span style="display:inline-block;margin:.2em .5em">A′{name} = <span style="{MATRIX}">{cells}</span></span>'
    return (
        '<div class="studio-formula">θ* = (Σ λᵢ A′ᵢ)⁻¹ Σ λᵢ A′ᵢ θᵢ = '
        f'<b style="white-space:nowrap">({own.point[0]:.4f}, {own.point[1]:.4f})</b></div>'
        f'<div class="studio-formula">{matrices}</div><p class="studio-source">K-FAC, with A′ = αA + (1 − α) diag A + '
        f"δ (tr A / 2) I, α = {settings.shrinkage:g} and δ = {settings.damping:g}. Each model is a linear layer of two "
        "inputs and one output: the factor A of its inputs is its whole F, the factor of its output the number 1.</p>"
    )
