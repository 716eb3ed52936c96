"""Pictures of where Fishers are large: per model, and one model over another. Data in, pictures out."""

from collections.abc import Sequence

import numpy
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from components.figures import NARROW_PX, _finished, _plain
from components.picture import Picture
from components.style import HEAT_COLOURS
from merging.diagnostics.maps import FisherMap

DIVERGING = "PuOr"
# Under dark text everywhere: numbers stand in the cells.
LIGHT_COLOURS = ("#f2f5f8", "#56B4E9")
ON_LIGHT = {"color": "#111", "size": 13}
PICK = "Open tensors"
# Between two rows of panels: aslant names of kinds, then the next models' names.
BETWEEN_PX = 120
# Cells from which on the table's numbers have three decimals: their texts are most of what travels.
MANY_CELLS = 300


def heatmap_picture(fisher: FisherMap, width_px: int) -> Picture:
    """log₁₀ of the mean Fisher, layers × kinds, one panel per model, one colour scale for all."""
    values = _logarithms(fisher.mean)
    narrow = width_px < NARROW_PX
    columns = 1 if narrow else 2
    rows = -(-len(fisher.models) // columns)
    panel_px = 60 + 26 * len(fisher.layers)
    height = 60 + rows * panel_px + (rows - 1) * BETWEEN_PX
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_plain(name) for name in fisher.models],
        vertical_spacing=min(0.9 / max(rows - 1, 1), BETWEEN_PX / height),
        horizontal_spacing=0.14,
    )
    for index, name in enumerate(fisher.models):
        panel = _panel(fisher, values[index], _plain(name))
        figure.add_trace(panel, row=index // columns + 1, col=index % columns + 1)
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False)
    figure.update_xaxes(fixedrange=True, showgrid=False, tickangle=-45)
    bar = _colour_bar("log₁₀ mean F", narrow)
    figure.update_layout(coloraxis={"colorscale": HEAT_COLOURS, "colorbar": bar})
    # What hovering tells of a cell travels once; page.js gives it to every panel.
    figure.update_layout(meta={"cells": cell_texts(fisher)})
    places = cells(fisher)
    return Picture(
        _finished(figure, height=height),
        _heat_sentence(fisher, values),
        ["layer", "kind", *fisher.models],
        table(fisher, [values], places),
        "log₁₀ of the mean Fisher of each layer and kind, by model; – where the Fisher is zero.",
        [pick_of(fisher, row, column) for row, column in places],
        PICK,
    )


def difference_picture(fisher: FisherMap, first: str, second: str) -> Picture:
    """log₁₀ of one model's mean Fisher over another's, each divided by its trace; 0 where they are equally sure."""
    pair = [fisher.models.index(first), fisher.models.index(second)]
    one, other = (_logarithms(fisher.mean[model] / (fisher.traces[model] or 1.0)) for model in pair)
    values = one - other
    there = values[numpy.isfinite(values)]
    furthest = float(numpy.abs(there).max()) if there.size and numpy.abs(there).max() > 0 else 1.0
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=list(fisher.kinds),
            y=list(fisher.layers),
            zmid=0,
            zmin=-furthest,
            zmax=furthest,
            colorscale=DIVERGING,
            colorbar=_colour_bar("log₁₀ ratio", False),
            xgap=2,
            ygap=2,
            hoverongaps=False,
            customdata=numbered(fisher),
            text=cell_texts(fisher),
            hovertemplate="%{y}, %{x}: 10<sup>%{z:+.2f}</sup><br>%{text}<extra></extra>",
        )
    )
    single_axes(figure)
    places = cells(fisher)
    larger = int((there > 0).sum())
    sentence = (
        f"Compared by the part of its own trace that each puts there, {first} is surer than {second} in {larger} of "
        f"{there.size} places"
        + (f", at most {10**furthest:.3g} times in either direction." if there.size else "; nothing can be compared.")
    )
    return Picture(
        _finished(figure, height=150 + 30 * len(fisher.layers)),
        sentence,
        ["layer", "kind", f"log₁₀ {first} / {second}"],
        table(fisher, [values[None]], places),
        f"log₁₀ of the mean Fisher of {first} over that of {second}, each divided by its trace.",
        [pick_of(fisher, row, column) for row, column in places],
        PICK,
    )


def pick_of(fisher: FisherMap, row: int, column: int) -> str:
    """What choosing a cell hands over: its number, row by row."""
    return str(row * len(fisher.kinds) + column)


def _panel(fisher: FisherMap, values: numpy.ndarray, name: str) -> go.Heatmap:
    return go.Heatmap(
        z=values,
        x=list(fisher.kinds),
        y=list(fisher.layers),
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        customdata=numbered(fisher),
        hovertemplate="%{y}, %{x}: 10<sup>%{z:.2f}</sup><br>%{text}<extra>" + name + "</extra>",
    )


def _logarithms(mean: numpy.ndarray) -> numpy.ndarray:
    with numpy.errstate(divide="ignore", invalid="ignore"):
        values = numpy.log10(mean).astype(numpy.float32)
    values[~numpy.isfinite(values)] = numpy.nan
    return values


def numbered(fisher: FisherMap) -> numpy.ndarray:
    """The cells' numbers, as small as they travel: what a click hands over."""
    return numpy.arange(len(fisher.layers) * len(fisher.kinds), dtype=numpy.int16).reshape(len(fisher.layers), -1)


def cells(fisher: FisherMap) -> list[tuple[int, int]]:
    """Rows and columns of the cells that have tensors."""
    return [
        (row, column) for row, cells in enumerate(fisher.tensors) for column, tensors in enumerate(cells) if tensors
    ]


def table(fisher: FisherMap, values: Sequence[numpy.ndarray], places: Sequence[tuple[int, int]]) -> list[list[object]]:
    """A row of numbers for each place."""
    digits = 3 if len(places) > MANY_CELLS else 6
    numbers = numpy.concatenate(values)
    return [
        [
            fisher.layers[row],
            fisher.kinds[column],
            *[round(float(value), digits) for value in numbers[:, row, column]],
        ]
        for row, column in places
    ]


def cell_texts(fisher: FisherMap) -> list[list[str]]:
    """Each cell's tensors with their shapes, for hovering."""
    return [
        ["<br>".join(_plain(line) for line in _cut([_named(fisher, name) for name in cell])) for cell in row]
        for row in fisher.tensors
    ]


def _named(fisher: FisherMap, name: str) -> str:
    return f"{name} ({' × '.join(str(size) for size in fisher.shapes[name])})"


def _cut(names: Sequence[str], limit: int = 4) -> list[str]:
    return [*names[:limit], *([f"and {len(names) - limit} more"] if len(names) > limit else [])]


def _heat_sentence(fisher: FisherMap, values: numpy.ndarray) -> str:
    if not numpy.isfinite(values).any():
        return "Every Fisher is zero everywhere: no model’s predictions depend on any parameter."
    model, row, column = numpy.unravel_index(numpy.nanargmax(values), values.shape)
    silent = [name for name, trace in zip(fisher.models, fisher.traces, strict=True) if not trace > 0]
    none = f" The Fisher of {', '.join(silent)} is zero everywhere." if silent else ""
    low, high = (10 ** float(edge(values)) for edge in (numpy.nanmin, numpy.nanmax))
    place = ", ".join(dict.fromkeys([fisher.layers[row], fisher.kinds[column]]))
    return (
        f"From place to place the mean Fisher differs {high / low:,.0f}-fold; it is largest in {place}, "
        f"of {fisher.models[model]}. A click on a place lists its tensors below.{none}"
    )


def single_axes(figure: go.Figure) -> None:
    """Layers from the top down, kinds aslant; nothing to zoom."""
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False)
    figure.update_xaxes(fixedrange=True, showgrid=False, tickangle=-45, automargin=True)


def _colour_bar(title: str, narrow: bool) -> dict[str, object]:
    bar = {"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0, "len": 1.0}
    return {**bar, "len": 300, "lenmode": "pixels", "y": 1, "yanchor": "top"} if narrow else bar
