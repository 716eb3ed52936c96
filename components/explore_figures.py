"""Pictures of what weights give two models: curves over λ. Data in, pictures out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.figures import NARROW_PX, _finished, _plain, legend_px
from components.picture import Picture
from components.style import COLOURS, DASHES, SYMBOLS, TITLES, tinted
from merging.errors import RecipeError
from merging.metrics import Score
from merging.search import TASK, Trial, best_of

# Bands of more rules than these two hide each other.
BANDED = 2
LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
HERE = {"width": 1.5, "dash": "dash", "color": "#888"}


@dataclass(frozen=True, eq=False)
class Explored:
    """What a picture is drawn from: trials by rule, the page's own first, what no weight changes, and where the sliders
    stand (sum 1).
    """

    names: Sequence[str]
    tasks: Sequence[str]
    trials: dict[str, list[Trial]]
    ensemble: Trial
    objective: str
    split: str
    here: Sequence[float]

    @property
    def rule(self) -> str:
        """The page's own rule."""
        return next(iter(self.trials))

    def best(self, rule: str) -> Trial | None:
        """The best trial of a rule by the objective."""
        return best_of(self.trials[rule], self.objective)


def pick_of(weights: Sequence[float]) -> str:
    """What a click on a point hands over: the weights, apart by blanks."""
    return " ".join(f"{weight:.6g}" for weight in weights)


def parsed(value: object, count: int) -> list[float]:
    """Weights from what a click handed over. Raises: RecipeError for anything else."""
    try:
        weights = [float(part) for part in str(value)[:200].split()]
        sound = all(math.isfinite(weight) and 0 <= weight <= 1 for weight in weights) and sum(weights) > 0
    except ValueError:
        weights, sound = [], False
    if not sound or len(weights) != count:
        raise RecipeError(
            f"This point cannot be used: expected {count} weights from 0 to 1, got {str(value)!r:.60}. "
            "Click a point of the picture, or choose a row of its table."
        )
    return weights


def objective_title(objective: str) -> str:
    """An objective in words."""
    return {"mean": "mean over the tasks", "worst": "worst task"}.get(objective, objective.removeprefix(TASK))


def begun(text: str) -> str:
    """A text as a sentence begins; a name keeps its capitals."""
    return text[:1].upper() + text[1:]


def weights_text(names: Sequence[str], weights: Sequence[float]) -> str:
    """Weights with their models' names."""
    return ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=True))


def percent(score: Score) -> str:
    """A score with its interval."""
    return f"{100 * score.value:.1f} % ({100 * score.low:.1f} to {100 * score.high:.1f})"


def sentence(explored: Explored) -> str:
    """What the pictures show, in words, also where the page's rule loses."""
    own, plain, what = explored.best(explored.rule), explored.best("isotropic"), objective_title(explored.objective)
    if own is None:
        return ""
    score = own.score(explored.objective)
    where = weights_text(explored.names, own.weights)
    parts = [
        f"{begun(what)} on {explored.split}: the {TITLES[explored.rule]} is best at λ {where}, with {percent(score)}"
    ]
    if plain is not None and plain is not own:
        gap = 100 * (score.value - plain.score(explored.objective).value)
        sides = "the same as" if abs(gap) < 0.05 else f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"
        parts.append(f"{sides} isotropic averaging at its own best λ")
    beside = [explored.best(rule) for rule in list(explored.trials)[1:] if rule != "isotropic"]
    best = best_of([trial for trial in beside if trial is not None], explored.objective)
    text = ", ".join(parts)
    if best is not None:
        value = 100 * best.score(explored.objective).value
        text += f". Of the rules beside it {TITLES[best.rule]} comes highest, {value:.1f} %"
    return f"{text}. The output ensemble reaches {100 * explored.ensemble.score(explored.objective).value:.1f} %."


def curve_picture(explored: Explored, width_px: int) -> Picture:
    """Two models: the objective over λ of the first, by rule, with 95 % bands and the ensemble dashed."""
    figure = go.Figure()
    for rule in reversed(explored.trials):
        _add_curve(figure, explored, rule, explored.objective, show_legend=True)
    ensemble = explored.ensemble.score(explored.objective)
    _add_level(figure, ensemble.value, f"{TITLES['ensemble']} {100 * ensemble.value:.1f} %")
    figure.add_vline(x=explored.here[0], line=HERE, annotation_text="sliders", annotation_position="bottom right")
    best = explored.best(explored.rule)
    if best is not None:
        figure.add_trace(_star([best.weights[0]], [100 * best.score(explored.objective).value], best))
    first, second = (_plain(name) for name in explored.names)
    figure.update_layout(hovermode="x", legend=LEGEND)
    ends = "" if width_px < NARROW_PX else f"   (0: {second} alone, 1: {first} alone)"
    figure.update_xaxes(title=f"λ · {first}{ends}", range=[-0.02, 1.02], fixedrange=True)
    figure.update_yaxes(
        title=objective_title(explored.objective).replace("over the tasks", "accuracy"),
        ticksuffix=" %",
        fixedrange=True,
    )
    columns, rows, picks = curve_rows(explored)
    caption = f"Accuracy in % on {explored.split}, with 95 % Wilson intervals; of the mean, at the effective number of examples."
    return Picture(
        _finished(figure, height=430 + legend_px(len(explored.trials) + 2, width_px), below=60),
        sentence(explored),
        columns,
        rows,
        caption,
        picks,
    )


def curve_rows(explored: Explored) -> tuple[list[str], list[list[object]], list[str]]:
    """The objective of every rule at every λ of two models: columns, rows, what a row picks."""
    columns = [f"λ {name}" for name in explored.names]
    for rule in explored.trials:
        columns += [TITLES[rule], "low", "high"]
    tried = {rule: {trial.weights: trial for trial in own} for rule, own in explored.trials.items()}
    points = sorted({weights for own in tried.values() for weights in own})
    rows = []
    for weights in points:
        row: list[object] = [float(weight) for weight in weights]
        for rule in explored.trials:
            trial = tried[rule].get(weights)
            score = trial.score(explored.objective) if trial else None
            row += [100 * score.value, 100 * score.low, 100 * score.high] if score else [None] * 3
        rows.append(row)
    return columns, rows, [pick_of(weights) for weights in points]


def tasks_picture(explored: Explored, width_px: int) -> Picture:
    """Two models: the same curve for every task, side by side on one scale."""
    count = len(explored.tasks)
    across = 1 if width_px < NARROW_PX else min(count, 3 if count > 4 else 2)
    down = -(-count // across)
    titles = [_plain(task) for task in explored.tasks]
    figure = make_subplots(
        rows=down,
        cols=across,
        subplot_titles=titles,
        shared_yaxes=True,
        vertical_spacing=0.24 / down,
        horizontal_spacing=0.06,
    )
    for index, task in enumerate(explored.tasks):
        place = {"row": index // across + 1, "col": index % across + 1}
        for rule in reversed(explored.trials):
            _add_curve(figure, explored, rule, f"{TASK}{task}", show_legend=index == 0, **place)
        _add_level(figure, explored.ensemble.scores[task].value, TITLES["ensemble"], show_legend=index == 0, **place)
        figure.add_vline(x=explored.here[0], line=HERE, **place)
    figure.update_xaxes(range=[-0.03, 1.03], fixedrange=True)
    figure.update_yaxes(ticksuffix=" %", fixedrange=True)
    figure.update_layout(hovermode="x", legend={**LEGEND, "y": 1.0 + 0.12 / down})
    columns = ["rule", *[f"λ {name}" for name in explored.names], *explored.tasks]
    tried = [trial for own in explored.trials.values() for trial in sorted(own, key=lambda trial: trial.weights)]
    rows = [
        [TITLES[one.rule], *one.weights, *[100 * one.scores[task].value for task in explored.tasks]] for one in tried
    ]
    text = f"Every task by itself, over λ · {explored.names[0]}."
    return Picture(
        _finished(figure, height=90 + 250 * down + legend_px(len(explored.trials) + 1, width_px), below=50),
        text,
        columns,
        rows,
        f"Accuracy in % on {explored.split}.",
    )


def _add_curve(
    figure: go.Figure, explored: Explored, rule: str, objective: str, *, show_legend: bool, **place: int
) -> None:
    trials = sorted(explored.trials[rule], key=lambda trial: trial.weights[0])
    scores = [trial.score(objective) for trial in trials]
    x = [trial.weights[0] for trial in trials]
    if rule in list(explored.trials)[:BANDED]:
        band = [100 * score.high for score in scores] + [100 * score.low for score in reversed(scores)]
        look = {"fill": "toself", "fillcolor": tinted(rule, 0.18), "line": {"width": 0}, "mode": "lines"}
        quiet = {"hoverinfo": "skip", "showlegend": False}
        figure.add_trace(go.Scatter(x=[*x, *reversed(x)], y=band, **look, **quiet), **place)
    figure.add_trace(
        go.Scatter(
            x=x,
            y=[100 * score.value for score in scores],
            mode="lines+markers",
            name=TITLES[rule],
            showlegend=show_legend,
            legendgroup=rule,
            line={"color": COLOURS[rule], "width": 2.5, "dash": DASHES[rule]},
            marker={"size": 5, "symbol": SYMBOLS[rule]},
            customdata=[
                [pick_of(trial.weights), f"{100 * one.low:.1f} to {100 * one.high:.1f}"]
                for trial, one in zip(trials, scores, strict=True)
            ],
            hovertemplate="<b>%{y:.1f} %</b> (%{customdata[1]})",
        ),
        **place,
    )


def _add_level(figure: go.Figure, value: float, name: str, *, show_legend: bool = True, **place: int) -> None:
    line = {"color": COLOURS["ensemble"], "width": 2, "dash": "dash"}
    trace = go.Scatter(x=[0, 1], y=[100 * value] * 2, mode="lines", line=line, name=name, hoverinfo="skip")
    figure.add_trace(trace.update(showlegend=show_legend, legendgroup="ensemble"), **place)


def _star(x: Sequence[float], y: Sequence[float], best: Trial) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        name=f"best {TITLES[best.rule]}",
        customdata=[[pick_of(best.weights)]],
        hoverinfo="skip",
        marker={"symbol": "star", "size": 16, "color": "#F0E442", "line": {"width": 1.5, "color": "#111"}},
    )
