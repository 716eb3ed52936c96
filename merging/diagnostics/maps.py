"""The numbers behind the heatmaps: where in the network each model's Fisher is large."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from merging.parameters import KINDS, layers_of, place_of
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.scales import check_fisher, fisher_scales, require_fishers
from merging.weights import normalised_weights


@dataclass(frozen=True, eq=False)
class FisherMap:
    """Fishers gathered by layer (L, input to output) and kind (K); NaN where a layer has no such kind.

    `mean` (M, L, K) is the mean of the raw Fisher over the cell's coordinates; `share` (M, L, K) the model's part
    of Σ λF in the cell, with F floored and normalised as in the merge, summing to 1 over the models (all 0 where
    Σ λF = 0); `tensors` (L, K) lists the cell's parameters, `shapes` theirs; `traces` (M,) are the sums of the raw
    Fishers, `zeros` (M,) the fractions of coordinates with F = 0, and `total_share` (M,) the models' parts of Σ λF over
    all cells.
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
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TensorFacts:
    """One tensor's raw Fisher in one model: `mean`, largest entry, fraction of zeros; `share` of the tensor's Σ λF."""

    name: str
    shape: tuple[int, ...]
    model: str
    mean: float
    largest: float
    zeros: float
    share: float


def fisher_map(prepared: Prepared, recipe: Recipe) -> FisherMap:
    """The Fishers of a prepared recipe, by layer and kind, and who owns each cell at the recipe's weights.

    Raises: FisherError unless every Fisher is finite and ≥ 0.
    """
    names = prepared.merged_names
    require_sound_fishers(prepared)
    places = {name: place_of(name) for name in names}
    layers = layers_of(names)
    kinds = [kind for kind in KINDS if any(place.kind == kind for place in places.values())]
    cells = [[tuple(n for n in names if places[n] == (layer, kind)) for kind in kinds] for layer in layers]
    sizes = {name: prepared.fishers[0][name].numel() for name in names}

    raw = _cell_sums([{n: _total(fisher[n]) for n in names} for fisher in prepared.fishers], cells)
    owned = _cell_sums(_owned(prepared, recipe, names, prepared.merged_names), cells)
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
        shapes={name: tuple(prepared.fishers[0][name].shape) for name in names},
    )


def tensor_facts(prepared: Prepared, recipe: Recipe, names: Sequence[str]) -> list[TensorFacts]:
    """Some parameters' Fishers in figures, model by model for each of them."""
    owned = _owned(prepared, recipe, names, prepared.merged_names)
    facts = []
    for name in names:
        total = sum(own[name] for own in owned)
        for model, fisher, own in zip(prepared.names, prepared.fishers, owned, strict=True):
            values = fisher[name]
            count = values.numel()
            facts.append(
                TensorFacts(
                    name=name,
                    shape=tuple(values.shape),
                    model=model,
                    mean=_total(values) / count,
                    largest=float(values.max()),
                    zeros=int((values == 0).sum()) / count,
                    share=own[name] / total if total > 0 else 0.0,
                )
            )
    return facts


def require_sound_fishers(prepared: Prepared) -> None:
    """Raises: FisherError, naming the model, unless there is a finite Fisher ≥ 0 for each."""
    require_fishers(prepared.fishers, count=len(prepared.names))
    for name, parameters, fisher in zip(prepared.names, prepared.parameters(), prepared.fishers, strict=True):
        check_fisher(parameters, fisher, f'The Fisher of "{name}"')


def _owned(prepared: Prepared, recipe: Recipe, names: Sequence[str], every: Sequence[str]) -> list[dict[str, float]]:
    """Each model's Σ λF of each tensor, with F floored and divided by its scale over `every` parameter."""
    settings = recipe.fisher
    floor = float(settings.floor)
    scales = fisher_scales(prepared.fishers, every, floor=floor, normalise=settings.normalise)
    weights = normalised_weights(recipe.weights, count=len(recipe.models))
    return [
        {n: weight / scale * _total(fisher[n].clamp_min(floor)) for n in names}
        for weight, scale, fisher in zip(weights, scales, prepared.fishers, strict=True)
    ]


def _total(tensor: Tensor) -> float:
    return float(tensor.sum(dtype=torch.float32 if tensor.device.type == "mps" else torch.float64))


def _cell_sums(
    totals: Sequence[dict[str, float]], cells: list[list[tuple[str, ...]]]
) -> Float[numpy.ndarray, " M L K"]:
    return numpy.array(
        [[[sum(own[n] for n in cell) if cell else numpy.nan for cell in row] for row in cells] for own in totals], float
    )
