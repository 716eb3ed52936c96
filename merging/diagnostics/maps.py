"""The numbers behind the heatmaps: where in the network each model's Fisher is large."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float

from merging.merge import normalised_weights
from merging.parameters import KINDS, layers_of, place_of
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.scales import fisher_scales


@dataclass(frozen=True, eq=False)
class FisherMap:
    """Fishers gathered by layer (L, input to output) and kind (K); NaN where a layer has no such kind.

    `mean` (M, L, K) is the mean of the raw Fisher over the cell's coordinates; `share` (M, L, K) the model's part
    of Σ λF in the cell, with F floored and normalised as in the merge, summing to 1 over the models (all 0 where
    Σ λF = 0); `tensors` (L, K) lists the cell's parameters; `traces` (M,) are the sums of the raw Fishers, `zeros` (M,)
    the fractions of coordinates with F = 0, and `total_share` (M,) the models' parts of Σ λF over all cells.
    """

    models: tuple[str, ...]
    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    mean: Float[numpy.ndarray, " M L K"]
    share: Float[numpy.ndarray, " M L K"]
    tensors: tuple[tuple[tuple[str, ...], ...], ...]
    traces: Float[numpy.ndarray, " M"]
    zeros: Float[numpy.ndarray, " M"]
    total_share: Float[numpy.ndarray, " M"]


def fisher_map(prepared: Prepared, recipe: Recipe) -> FisherMap:
    """The Fishers of a prepared recipe, by layer and kind, and who owns each cell at the recipe's weights."""
    names = prepared.merged_names
    places = {name: place_of(name) for name in names}
    layers = layers_of(names)
    kinds = [kind for kind in KINDS if any(place.kind == kind for place in places.values())]
    cells = [[tuple(n for n in names if places[n] == (layer, kind)) for kind in kinds] for layer in layers]
    settings = recipe.fisher
    scales = fisher_scales(prepared.fishers, names, floor=float(settings.floor), normalise=settings.normalise)
    weights = normalised_weights(recipe.weights, count=len(recipe.models))
    sizes = {name: prepared.fishers[0][name].numel() for name in names}

    raw = _cell_sums([{n: _total(fisher[n]) for n in names} for fisher in prepared.fishers], cells)
    floor = float(settings.floor)
    owned = _cell_sums(
        [
            {n: weight / scale * _total(fisher[n].clamp_min(floor)) for n in names}
            for weight, scale, fisher in zip(weights, scales, prepared.fishers, strict=True)
        ],
        cells,
    )
    count = _cell_sums([sizes], cells)[0]
    with numpy.errstate(invalid="ignore", divide="ignore"):
        total = owned.sum(0)
        share = numpy.where(numpy.isnan(total), numpy.nan, numpy.where(total > 0, owned / total, 0.0))
        mean = raw / count
    zeros = numpy.array(
        [sum(int((fisher[n] == 0).sum()) for n in names) / sum(sizes.values()) for fisher in prepared.fishers]
    )
    parts = numpy.nansum(owned, axis=(1, 2))
    return FisherMap(
        models=tuple(prepared.names),
        layers=tuple(layers),
        kinds=tuple(kinds),
        mean=mean,
        share=share,
        tensors=tuple(tuple(row) for row in cells),
        traces=numpy.nansum(raw, axis=(1, 2)),
        zeros=zeros,
        total_share=parts / (parts.sum() or 1.0),
    )


def _total(tensor: torch.Tensor) -> float:
    return float(tensor.sum(dtype=torch.float32 if tensor.device.type == "mps" else torch.float64))


def _cell_sums(
    totals: Sequence[dict[str, float]], cells: list[list[tuple[str, ...]]]
) -> Float[numpy.ndarray, " M L K"]:
    return numpy.array(
        [[[sum(own[n] for n in cell) if cell else numpy.nan for cell in row] for row in cells] for own in totals], float
    )
