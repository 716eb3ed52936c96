"""Pictures of whose each layer is, and the tables of Fishers and tensors. Data in, pictures out."""

from collections.abc import Sequence

import numpy
import plotly.graph_objects as go

from components.figures import _finished, _plain
from components.inspect_heatmaps import PICK, cell_texts, cells, numbered, pick_of, single_axes, table
from components.picture import Picture
from components.style import MODEL_COLOURS
from merging.diagnostics.maps import FisherMap, TensorFacts

# Models that hovering names in a cell of the owner map.
MOST_TOLD = 4


def owner_picture(fisher: FisherMap) -> Picture:
    """Who owns which layer: per cell the model with the largest share of Σ λF, and that share in per cent."""
    share = numpy.nan_to_num(fisher.share, nan=-1.0)
    owner = share.argmax(0).astype(numpy.float32)
    largest = share.max(0)
    owner[largest <= 0] = numpy.nan
    count = len(fisher.models)
    colours = [MODEL_COLOURS[index % len(MODEL_COLOURS)] for index in range(count)]
    steps = [(edge / count, colours[min(place, count - 1)]) for place in range(count) for edge in (place, place + 1)]
    figure = go.Figure(
        go.Heatmap(
            z=owner,
            x=list(fisher.kinds),
            y=list(fisher.layers),
            zmin=-0.5,
            zmax=count - 0.5,
            colorscale=steps,
            showscale=False,
            xgap=2,
            ygap=2,
            text=[["" if value <= 0 else f"{100 * value:.0f}" for value in row] for row in largest],
            texttemplate="%{text}",
            textfont={"size": 12, "color": "#111"},
            hoverongaps=False,
            customdata=numbered(fisher),
            hovertext=_share_texts(fisher),
            hovertemplate="%{y}, %{x}<br>%{hovertext}<extra></extra>",
        )
    )
    for name, colour in zip(fisher.models, colours, strict=True):
        marker = {"color": colour, "size": 12, "symbol": "square"}
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="markers", name=_plain(name), showlegend=True, marker=marker)
        )
    single_axes(figure)
    figure.update_layout(legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0})
    places = cells(fisher)
    owners = [fisher.models[int(owner[cell])] if numpy.isfinite(owner[cell]) else "nobody" for cell in places]
    rows = [
        [*row[:2], own, *row[2:]] for own, row in zip(owners, table(fisher, [100 * fisher.share], places), strict=True)
    ]
    return Picture(
        _finished(figure, height=140 + 40 * len(fisher.layers)),
        _owner_sentence(fisher, owners),
        ["layer", "kind", "owner", *[f"{name} %" for name in fisher.models]],
        rows,
        "Each model’s share of Σ λF in each layer and kind, in %, and whose is largest.",
        [pick_of(fisher, row, column) for row, column in places],
        PICK,
    )


def facts_picture(fisher: FisherMap) -> Picture:
    """The Fishers in figures, one row per model; no figure."""
    rows = [
        [name, float(trace), 100 * float(zeros), 100 * float(share)]
        for name, trace, zeros, share in zip(
            fisher.models, fisher.traces, fisher.zeros, fisher.total_share, strict=True
        )
    ]
    caption = (
        "The Fishers in figures. The raw trace differs between models that differ in confidence, which is why it is "
        "normalised by default."
    )
    return Picture(None, "", ["model", "trace (raw)", "% of parameters with F = 0", "% of Σ λF"], rows, caption)


def tensors_picture(place: str, facts: Sequence[TensorFacts]) -> Picture:
    """The tensors of one cell, one row for each of them and each model; no figure."""
    rows = [
        [
            own.name,
            " × ".join(str(size) for size in own.shape),
            own.model,
            own.mean,
            own.largest,
            100 * own.zeros,
            100 * own.share,
        ]
        for own in facts
    ]
    count = len({own.name for own in facts})
    sentence = f"{place[:1].upper()}{place[1:]}: {count} tensor{'' if count == 1 else 's'}."
    columns = ["tensor", "shape", "model", "mean F", "largest F", "% with F = 0", "% of Σ λF"]
    return Picture(None, sentence, columns, rows, "The raw Fisher of each tensor, and the models’ shares of its Σ λF.")


def _share_texts(fisher: FisherMap) -> list[list[str]]:
    """The largest shares of each cell, and its tensors, for hovering."""
    names = [_plain(name) for name in fisher.models]
    order = numpy.argsort(-numpy.nan_to_num(fisher.share, nan=-1.0), axis=0, kind="stable")[:MOST_TOLD]
    return [
        [
            "<br>".join([*_largest(names, fisher.share[:, row, column], order[:, row, column]), text]) if text else ""
            for column, text in enumerate(texts)
        ]
        for row, texts in enumerate(cell_texts(fisher))
    ]


def _largest(names: Sequence[str], shares: numpy.ndarray, order: numpy.ndarray) -> list[str]:
    return [f"{names[index]} {100 * shares[index]:.1f} %" for index in order]


def _owner_sentence(fisher: FisherMap, owners: Sequence[str]) -> str:
    if not fisher.total_share.max() > 0:
        return "Nobody owns anything: Σ λF is zero everywhere."
    first = max(range(len(fisher.models)), key=lambda index: owners.count(fisher.models[index]))
    name = fisher.models[first]
    return (
        f"{name} owns the most places, {owners.count(name)} of {len(owners)}; over all parameters its part of Σ λF is "
        f"{100 * fisher.total_share[first]:.1f} %."
    )
