"""Pictures of what weights give three models or more: maps, the best lines, the way of the search. Data in, pictures out."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.explore_figures import (
    LEGEND,
    Explored,
    begun,
    curve_rows,
    objective_title,
    percent,
    pick_of,
    sentence,
    weights_text,
)
from components.figures import NARROW_PX, _finished, _plain
from components.picture import Picture
from components.style import COLOURS, DASHES, HEAT_COLOURS, SYMBOLS, TITLES
from merging.search import Trial, map_points

# So that the tiles of the lattice touch, at the usual widths of a page.
TILE_PX = {"desktop": 36, "phone": 27}
BEST_LINES = 12
OTHER_LINES = "#7f7f7f"
LISTED = 30


def map_picture(explored: Explored, width_px: int) -> Picture:
    """Three models: a ternary map for each rule, one colour scale, the best point and the sliders' place marked."""
    narrow, count = width_px < NARROW_PX, len(explored.trials)
    specs = [[{"type": "ternary"}]] * count if narrow else [[{"type": "ternary"}] * count]
    figure = make_subplots(
        rows=count if narrow else 1,
        cols=1 if narrow else count,
        specs=specs,
        subplot_titles=[_map_title(explored, rule) for rule in explored.trials],
        horizontal_spacing=0.12,
        vertical_spacing=0.2,
    )
    for index, rule in enumerate(explored.trials):
        place = {"row": index + 1, "col": 1} if narrow else {"row": 1, "col": index + 1}
        for trace in _map_tiles(explored, rule, size_px=TILE_PX["phone" if narrow else "desktop"]):
            figure.add_trace(trace, **place)
        figure.add_trace(_corner_names(explored, size_px=TILE_PX["phone" if narrow else "desktop"]), **place)
        for trace in _map_marks(explored, rule, show_legend=index == 0):
            figure.add_trace(trace, **place)
    plain = {"showgrid": False, "showticklabels": False, "ticks": "", "showline": False, "title": {"text": ""}}
    figure.update_ternaries(aaxis=plain, baxis=plain, caxis=plain, sum=1, bgcolor="rgba(0,0,0,0)")
    bar = {"title": {"text": "accuracy, %", "side": "right"}, "thickness": 12, "outlinewidth": 0, "x": 1.05}
    if narrow:
        bar |= {"orientation": "h", "x": 0.5, "y": -0.14, "title": {"text": "accuracy, %", "side": "top"}}
    figure.update_layout(
        coloraxis={"colorscale": HEAT_COLOURS, "colorbar": bar}, legend={**LEGEND, "y": 1.1 if narrow else 1.16}
    )
    # Above the corner's own name.
    figure.update_annotations(yshift=30, font={"size": 15})
    columns, rows, picks = curve_rows(explored)
    caption = f"{begun(objective_title(explored.objective))}: accuracy in % on {explored.split}, with 95 % intervals."
    finished = _finished(figure, height=420 * count if narrow else 480, below=50)
    finished.update_layout(margin={"l": 36, "r": 36, "t": 90})
    return Picture(finished, sentence(explored), columns, rows, caption, picks)


def _corner_names(explored: Explored, *, size_px: int) -> go.Scatterternary:
    """The models' names, clear of the corners' tiles."""
    return go.Scatterternary(
        a=[1, 0, 0],
        b=[0, 1, 0],
        c=[0, 0, 1],
        mode="markers+text",
        text=[f"<b>{_plain(name)}</b>" for name in explored.names],
        textposition=["top center", "bottom center", "bottom center"],
        textfont={"size": 13},
        marker={"size": size_px, "opacity": 0},
        showlegend=False,
        cliponaxis=False,
        hoverinfo="skip",
    )


def _map_title(explored: Explored, rule: str) -> str:
    best = explored.best(rule)
    return TITLES[rule] + ("" if best is None else f", at best {100 * best.score(explored.objective).value:.1f} %")


def _map_tiles(explored: Explored, rule: str, *, size_px: int) -> list[go.Scatterternary]:
    """The lattice as tiles that touch, and what was tried between them as dots on top."""
    lattice = set(map_points(len(explored.names)))
    tiles = [trial for trial in explored.trials[rule] if trial.weights in lattice]
    dots = [trial for trial in explored.trials[rule] if trial.weights not in lattice]
    return [
        _map_points(explored, tiles, {"size": size_px, "symbol": "hexagon"}),
        _map_points(explored, dots, {"size": 8, "symbol": "circle", "line": {"width": 1, "color": "#111"}}),
    ]


def _map_points(explored: Explored, trials: Sequence[Trial], marker: dict[str, object]) -> go.Scatterternary:
    scores = [trial.score(explored.objective) for trial in trials]
    data = [
        [pick_of(trial.weights), percent(score), weights_text(explored.names, trial.weights)]
        for trial, score in zip(trials, scores, strict=True)
    ]
    return go.Scatterternary(
        **{letter: [trial.weights[place] for trial in trials] for place, letter in enumerate("abc")},
        mode="markers",
        showlegend=False,
        cliponaxis=False,
        marker={**marker, "color": [100 * score.value for score in scores], "coloraxis": "coloraxis", "opacity": 1},
        customdata=data,
        hovertemplate="<b>%{customdata[1]}</b><br>%{customdata[2]}<extra></extra>",
    )


def _map_marks(explored: Explored, rule: str, *, show_legend: bool) -> list[go.Scatterternary]:
    marks = [("sliders", explored.here, "x", "#fff")]
    if (best := explored.best(rule)) is not None:
        marks.append(("best", best.weights, "star", "#D55E00"))
    return [
        go.Scatterternary(
            **{letter: [where[place]] for place, letter in enumerate("abc")},
            mode="markers",
            name=name,
            showlegend=show_legend,
            legendgroup=name,
            cliponaxis=False,
            hoverinfo="skip",
            customdata=[[pick_of(where)]],
            marker={
                "symbol": symbol,
                "size": 18 if symbol == "star" else 12,
                "color": colour,
                "line": {"width": 1.5, "color": "#fff" if symbol == "star" else "#111"},
            },
        )
        for name, where, symbol, colour in marks
    ]


def lines_picture(explored: Explored) -> Picture:
    """Four models or more: the page's rule's best merges as lines over the models' λ, the best of all bold, the sliders dashed."""
    ranked = _ranked(explored, explored.rule)
    shown, names = ranked[:BEST_LINES], [_plain(name) for name in explored.names]
    figure = go.Figure()
    scores = [100 * trial.score(explored.objective).value for trial in shown]
    for place, trial in reversed(list(enumerate(shown))):
        share = (scores[place] - scores[-1]) / ((scores[0] - scores[-1]) or 1.0)
        figure.add_trace(_line(explored, trial, names, is_best=place == 0, share=share))
    figure.add_trace(
        go.Scatter(
            x=names,
            y=list(explored.here),
            mode="lines+markers",
            name="sliders",
            line={"color": "#888", "width": 2, "dash": "dash"},
            marker={"symbol": "x", "size": 9},
            customdata=[[pick_of(explored.here)]] * len(names),
            hovertemplate="%{x}: λ %{y:.3f}",
        )
    )
    figure.update_layout(legend=LEGEND, hovermode="closest")
    figure.update_xaxes(fixedrange=True, automargin=True, showgrid=True, tickfont={"size": 13})
    figure.update_yaxes(title="λ (normalised)", rangemode="tozero", fixedrange=True)
    listed = [trial for rule in explored.trials for trial in _ranked(explored, rule)[:LISTED]]
    columns = ["rule", objective_title(explored.objective), "low", "high", *[f"λ {name}" for name in explored.names]]
    columns += [f"{task} %" for task in explored.tasks]
    rows = [_listed(explored, trial) for trial in listed]
    caption = f"The best {LISTED} of each rule. Accuracy in % on {explored.split}, with 95 % Wilson intervals."
    picks = [pick_of(trial.weights) for trial in listed]
    return Picture(_finished(figure, height=400, below=50), sentence(explored), columns, rows, caption, picks)


def _ranked(explored: Explored, rule: str) -> list[Trial]:
    def merit(trial: Trial) -> tuple[float, float]:
        return trial.score(explored.objective).value, trial.mean.value

    return sorted(explored.trials[rule], key=merit, reverse=True)


def _listed(explored: Explored, trial: Trial) -> list[object]:
    score = trial.score(explored.objective)
    row: list[object] = [TITLES[trial.rule], 100 * score.value, 100 * score.low, 100 * score.high, *trial.weights]
    return [*row, *[100 * trial.scores[task].value for task in explored.tasks]]


def _line(explored: Explored, trial: Trial, names: Sequence[str], *, is_best: bool, share: float) -> go.Scatter:
    score = percent(trial.score(explored.objective))
    return go.Scatter(
        x=list(names),
        y=list(trial.weights),
        mode="lines+markers",
        name=f"best {TITLES[trial.rule]}" if is_best else "next best",
        showlegend=is_best,
        opacity=1.0 if is_best else 0.25 + 0.45 * share,
        line={"color": COLOURS[trial.rule] if is_best else OTHER_LINES, "width": 4 if is_best else 1.6},
        marker={"size": 9 if is_best else 6, "symbol": "circle"},
        customdata=[[pick_of(trial.weights), score]] * len(names),
        hovertemplate="<b>%{customdata[1]}</b><br>%{x}: λ %{y:.3f}",
    )


def search_picture(explored: Explored) -> Picture:
    """The way of the search: what each merge gave, and the best so far, by rule."""
    figure, rows = go.Figure(), []
    for rule in reversed(explored.trials):
        trials = explored.trials[rule]
        values = [100 * trial.score(explored.objective).value for trial in trials]
        numbers, best = list(range(1, len(values) + 1)), _running_best(values)
        figure.add_trace(
            go.Scatter(
                x=numbers,
                y=values,
                mode="markers",
                name=f"{TITLES[rule]}, each",
                showlegend=False,
                marker={"color": COLOURS[rule], "size": 7, "symbol": SYMBOLS[rule], "opacity": 0.55},
                customdata=[[pick_of(trial.weights), weights_text(explored.names, trial.weights)] for trial in trials],
                hovertemplate="<b>%{y:.1f} %</b><br>%{customdata[1]}",
            )
        )
        line = {"color": COLOURS[rule], "width": 2.5, "dash": DASHES[rule], "shape": "hv"}
        figure.add_trace(
            go.Scatter(
                x=numbers, y=best, mode="lines", name=f"{TITLES[rule]}, best so far", line=line, hoverinfo="skip"
            )
        )
        rows += [[TITLES[rule], *row] for row in zip(numbers, values, best, strict=True)]
    level = 100 * explored.ensemble.score(explored.objective).value
    figure.add_hline(y=level, line={"color": COLOURS["ensemble"], "width": 2, "dash": "dash"})
    figure.update_layout(legend=LEGEND, hovermode="closest")
    figure.update_xaxes(title="merges tried with each rule", fixedrange=True, rangemode="tozero")
    figure.update_yaxes(
        title={"text": objective_title(explored.objective), "standoff": 10}, ticksuffix=" %", fixedrange=True
    )
    columns = ["rule", "number", objective_title(explored.objective), "best so far"]
    text = f"The way of the search, in the order of trying; dashed: the output ensemble, {level:.1f} %."
    caption = f"Accuracy in % on {explored.split}."
    return Picture(_finished(figure, height=340, below=60), text, columns, rows, caption)


def _running_best(values: Sequence[float]) -> list[float]:
    best: list[float] = []
    for value in values:
        best.append(max(value, best[-1]) if best else value)
    return best
