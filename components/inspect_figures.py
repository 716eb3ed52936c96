"""Pictures of how coordinates are mixed, how alike tasks are, and how far layers moved. Data in, pictures out."""

from collections.abc import Sequence

import numpy
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.figures import NARROW_PX, _finished, _plain
from components.inspect_heatmaps import LIGHT_COLOURS, ON_LIGHT
from components.picture import Picture
from components.style import COLOURS, MODEL_COLOURS, TITLES
from merging.diagnostics.distances import Distances
from merging.diagnostics.mixing import FisherPercentiles, MixingHistogram
from merging.diagnostics.similarity import Similarity

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon")
MERGES = {"isotropic": "square", "fisher": "star"}
LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
# A share this near to 1 means that the coordinate is one model's alone.
ALONE = 0.9


def mixing_picture(equal: MixingHistogram, chosen: MixingHistogram, width_px: int) -> Picture:
    """Of all coordinates, how many go to each model by which share of Σ λF; filled: the sliders' λ, dashed: equal λ."""
    columns = 1 if width_px < NARROW_PX else 2
    count = len(chosen.models)
    rows = -(-count // columns)
    height = 90 + 190 * rows
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_plain(name) for name in chosen.models],
        vertical_spacing=min(0.9 / max(rows - 1, 1), 70 / height),
        horizontal_spacing=0.1,
        shared_yaxes="all",
    )
    middles = 50 * (chosen.edges[:-1] + chosen.edges[1:])
    for index, name in enumerate(chosen.models):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        colour = MODEL_COLOURS[index % len(MODEL_COLOURS)]
        figure.add_trace(
            _steps(middles, _percent(chosen, index), f"{name}, sliders’ λ", fill="tozeroy", line={"color": colour}),
            **place,
        )
        line = {"color": "#888", "dash": "dash", "width": 1.5}
        figure.add_trace(_steps(middles, _percent(equal, index), f"{name}, equal λ", line=line), **place)
    figure.update_xaxes(ticksuffix=" %", range=[0, 100], tickvals=[0, 25, 50, 75, 100], fixedrange=True, showgrid=False)
    figure.update_yaxes(ticksuffix=" %", rangemode="tozero", fixedrange=True)
    figure.update_layout(showlegend=False)
    table = []
    for index, name in enumerate(chosen.models):
        for place, (low, high) in enumerate(zip(chosen.edges[:-1], chosen.edges[1:], strict=True)):
            own = [float(_percent(one, index)[place]) for one in (chosen, equal)]
            table.append([name, round(100 * float(low), 6), round(100 * float(high), 6), *own])
    return Picture(
        _finished(figure, height=height, below=50),
        _mixing_sentence(equal, chosen),
        ["model", "share of Σ λF from %", "to %", "% of coordinates, sliders’ λ", "% of coordinates, equal λ"],
        table,
        f"Of {chosen.total - chosen.unowned} coordinates with Σ λF > 0.",
    )


def percentiles_picture(found: FisherPercentiles) -> Picture:
    """The raw Fishers' entries in order of size, on a logarithmic scale; zeros have no place on it."""
    figure = go.Figure()
    ticks = [f"{percent} %" for percent in found.percents]
    for index, name in enumerate(found.models):
        values = [float(value) if value > 0 else None for value in found.values[index]]
        figure.add_trace(
            go.Scatter(x=ticks, y=values, mode="lines+markers", name=_plain(name), **_look(index)).update(
                hovertemplate="%{x} of the entries are at most %{y:.3g}"
            )
        )
    figure.update_yaxes(type="log", exponentformat="power", dtick=2, fixedrange=True, title="F")
    figure.update_xaxes(type="category", fixedrange=True)
    figure.update_layout(legend=LEGEND)
    columns = ["model", *[f"{percent} %" for percent in found.percents], "% with F = 0", "% with F ≤ floor"]
    rows = [
        [name, *map(float, (*found.values[index], 100 * found.zeros[index], 100 * found.at_floor[index]))]
        for index, name in enumerate(found.models)
    ]
    how = "from all coordinates" if found.sampled is None else f"from {found.sampled} coordinates drawn by the seed"
    worst, floored = int(found.zeros.argmax()), float(found.at_floor.max())
    sentence = "No entry is exactly zero."
    if found.zeros[worst] > 0:
        part = 100 * found.zeros[worst]
        sentence = f"{part:.3g} % of the entries of {found.models[worst]} are exactly zero, the most of all models."
    if found.floor > 0:
        sentence += f" The floor of {found.floor:g} lifts up to {100 * floored:.3g} % of a model’s entries."
    median = float(numpy.nanmedian(found.values[:, list(found.percents).index(50)])) if 50 in found.percents else 0.0
    if median > 0:
        sentence += f" The largest entry is {found.values.max() / median:,.0f} times the median."
    caption = (
        f"Percentiles of the raw Fisher, {how}; share of zeros, and of entries that the floor of {found.floor:g} lifts."
    )
    return Picture(_finished(figure, height=360, below=40), sentence, columns, rows, caption)


def cosine_picture(found: Similarity) -> Picture:
    """Cosines of the Fishers, model by model."""
    return _pairs(
        found.models, found.cosine, "cosine", "The Fishers most alike are those of {} and {}, cosine {:.3f}.", 1
    )


def task2vec_picture(found: Similarity) -> Picture:
    """Task2Vec distances, model by model."""
    text = "By Task2Vec the nearest tasks are those of {} and {}, distance {:.3f}."
    return _pairs(found.models, found.task2vec, "distance", text, -1)


def moved_picture(found: Distances, *, origin: str) -> Picture:
    """How far models and merges lie from an origin ("base" or "isotropic"), layer by layer or kind by kind."""
    values = found.from_base if origin == "base" else found.from_isotropic
    figure, titles = go.Figure(), [TITLES.get(name, name) for name in found.series]
    merges = len(found.series) - 2
    shown = [index for index in range(len(titles)) if not (origin == "isotropic" and index == merges)]
    for index in shown:
        look = _look(index)
        if index >= merges:
            colour = COLOURS[found.series[index]]
            marker = {
                "size": 13,
                "color": colour,
                "symbol": MERGES[found.series[index]],
                "line": {"width": 1.5, "color": "#111"},
            }
            look = {"line": {"color": colour, "width": 4}, "marker": marker}
        numbers = [None if numpy.isnan(value) else 100 * float(value) for value in values[index]]
        figure.add_trace(
            go.Scatter(
                x=list(found.groups), y=numbers, mode="lines+markers", name=_plain(titles[index]), **look
            ).update(hovertemplate="%{x}: %{y:.3g} %")
        )
    figure.update_yaxes(ticksuffix=" %", rangemode="tozero", fixedrange=True)
    figure.update_xaxes(type="category", fixedrange=True, automargin=True)
    figure.update_layout(legend=LEGEND)
    what = "the base" if origin == "base" else "the isotropic average"
    rows = [
        [group, *[100 * float(values[index, place]) for index in shown]] for place, group in enumerate(found.groups)
    ]
    columns = ["place", *[f"{titles[index]} %" for index in shown]]
    caption = f"‖θ − θ₀‖ / ‖θ₀‖ in %, θ₀ being {what}."
    sentence = _moved_sentence(found.groups, titles, values, shown, what)
    return Picture(_finished(figure, height=380, below=50), sentence, columns, rows, caption)


def _steps(x: numpy.ndarray, y: numpy.ndarray, name: str, **look: object) -> go.Scatter:
    hover = "%{x:.0f} %: %{y:.2f} % of the coordinates<extra>" + _plain(name) + "</extra>"
    shape = {"shape": "hvh", "width": 2, **look.pop("line")}
    values = y.astype(numpy.float32)
    return go.Scatter(x=x, y=values, mode="lines", name=_plain(name), line=shape, hovertemplate=hover, **look)


def _percent(histogram: MixingHistogram, index: int) -> numpy.ndarray:
    return 100 * histogram.counts[index] / max(histogram.total - histogram.unowned, 1)


def _mixing_sentence(equal: MixingHistogram, chosen: MixingHistogram) -> str:
    if chosen.unowned == chosen.total:
        return "Σ λF is zero everywhere: the zero rule fills every coordinate, and there is nothing to mix."
    first = int(chosen.means.argmax())
    bins = chosen.edges[:-1] >= ALONE - 1e-9
    alone = 100 * chosen.counts[:, bins].sum() / (chosen.total - chosen.unowned)
    text = (
        f"On average {chosen.models[first]} has the largest share, {100 * chosen.means[first]:.1f} % "
        f"(with equal λ {100 * equal.means[first]:.1f} %); in {alone:.1f} % of the coordinates one model has more than "
        f"{100 * ALONE:.0f} % of it."
    )
    if numpy.allclose(chosen.weights, equal.weights):
        text += " The sliders are equal now: move them on the Merge tab to see the histograms shift."
    if chosen.unowned:
        text += f" {chosen.unowned} of {chosen.total} coordinates have Σ λF = 0; the zero rule fills them."
    return text


def _pairs(models: Sequence[str], values: numpy.ndarray, what: str, text: str, sign: int) -> Picture:
    names = [_plain(name) for name in models]
    figure = go.Figure(
        go.Heatmap(
            z=values.astype(numpy.float32),
            x=names,
            y=names,
            zmin=0,
            zmax=1,
            colorscale=LIGHT_COLOURS,
            reversescale=sign < 0,
            showscale=False,
            xgap=2,
            ygap=2,
            hoverongaps=False,
            texttemplate="%{z:.2f}",
            textfont=ON_LIGHT,
            hovertemplate="%{y}, %{x}: %{z:.4f}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False, automargin=True)
    figure.update_xaxes(fixedrange=True, showgrid=False, automargin=True, tickangle=-45)
    others = values.astype(float).copy()
    numpy.fill_diagonal(others, numpy.nan)
    sentence = "Nothing can be compared: a Fisher that is zero everywhere points nowhere."
    if numpy.isfinite(others).any():
        row, column = numpy.unravel_index(numpy.nanargmax(sign * others), others.shape)
        sentence = text.format(models[row], models[column], others[row, column])
    rows = [[name, *[float(value) for value in values[index]]] for index, name in enumerate(models)]
    caption = f"The {what} of each pair of models."
    return Picture(
        _finished(figure, height=130 + 44 * len(names), below=60), sentence, ["model", *models], rows, caption
    )


def _moved_sentence(
    groups: Sequence[str], titles: Sequence[str], values: numpy.ndarray, shown: Sequence[int], what: str
) -> str:
    own = values[list(shown)]
    if not numpy.isfinite(own).any():
        return f"Nothing can be measured: {what} is zero everywhere."
    row, column = numpy.unravel_index(numpy.nanargmax(own), own.shape)
    if own[row, column] == 0:
        return f"Nothing has moved: all are equal to {what}."
    fisher = values[-1]
    return (
        f"Farthest from {what} is {titles[shown[row]]} in {groups[column]}, by {100 * own[row, column]:.1f} %; "
        f"the Fisher merge moves by {100 * numpy.nanmin(fisher):.1f} to {100 * numpy.nanmax(fisher):.1f} %."
    )


def _look(index: int) -> dict[str, object]:
    colour = MODEL_COLOURS[index % len(MODEL_COLOURS)]
    return {
        "line": {"color": colour, "dash": DASHES[index % len(DASHES)], "width": 2},
        "marker": {"color": colour, "symbol": SYMBOLS[index % len(SYMBOLS)], "size": 8},
    }
