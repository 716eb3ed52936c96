"""How the models are mixed, coordinate by coordinate: λF/ΣλF as a histogram, and the sizes of each Fisher's entries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from merging.diagnostics.maps import require_sound_fishers
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.rules import mixing_weights
from merging.scales import fisher_scales
from merging.weights import normalised_weights

BINS = 50
PIECE = 2**20  # coordinates of each model that are held at once, in float64
PERCENTS = (0, 1, 5, 25, 50, 75, 95, 99, 100)
# Up to so many coordinates percentiles are exact; beyond it they are those of a sample of so many.
EXACT = 2**24
SAMPLED = 2**21


@dataclass(frozen=True, eq=False)
class MixingHistogram:
    """Over all merged coordinates, how often each model has which share of Σ λF: `counts` (M, B) between `edges` (B + 1).

    `means` (M,) are the mean shares; `unowned` coordinates have Σ λF = 0 (the zero rule fills them) and are in no bin.
    A bin holds its lower edge; the last one both.
    """

    models: tuple[str, ...]
    weights: tuple[float, ...]
    edges: Float[numpy.ndarray, " B1"]
    counts: Int[numpy.ndarray, " M B"]
    means: Float[numpy.ndarray, " M"]
    unowned: int
    total: int


@dataclass(frozen=True, eq=False)
class FisherPercentiles:
    """The sizes of each raw Fisher's entries: `values` (M, P) at `percents`, the fractions at zero, and ≤ the floor.

    `sampled` is how many coordinates the percentiles between 0 and 100 were taken from, None where from all of them.
    """

    models: tuple[str, ...]
    percents: tuple[int, ...]
    values: Float[numpy.ndarray, " M P"]
    zeros: Float[numpy.ndarray, " M"]
    at_floor: Float[numpy.ndarray, " M"]
    floor: float
    sampled: int | None


def mixing_histogram(
    prepared: Prepared, recipe: Recipe, weights: Sequence[float] | None = None, *, bins: int = BINS
) -> MixingHistogram:
    """Counts λᵢFᵢ/Σⱼ λⱼFⱼ, with F floored and normalised as in the merge; `weights` in place of the recipe's.

    Raises: FisherError unless every Fisher is finite and ≥ 0; RecipeError for weights without meaning.
    """
    names, settings, count = prepared.merged_names, recipe.fisher, len(prepared.names)
    require_sound_fishers(prepared)
    lambdas = normalised_weights(recipe.weights if weights is None else weights, count=count)
    floor = float(settings.floor)
    scales = fisher_scales(prepared.fishers, names, floor=floor, normalise=settings.normalise)
    counts = numpy.zeros((count, bins), dtype=numpy.int64)
    sums, unowned, total = numpy.zeros(count), 0, 0
    for piece in stacked_pieces(prepared.fishers, names):
        factors = piece.new_tensor(scales)[:, None]
        shares = mixing_weights(piece.clamp_min(floor) / factors, piece.new_tensor(lambdas))
        owned = shares[:, shares.sum(0) > 0]
        total, unowned = total + shares.shape[1], unowned + shares.shape[1] - owned.shape[1]
        sums += owned.sum(1).numpy()
        places = (owned * bins).long().clamp_(0, bins - 1)
        counts += torch.stack([torch.bincount(own, minlength=bins) for own in places]).numpy()
    edges = numpy.linspace(0, 1, bins + 1)
    means = sums / max(total - unowned, 1)
    return MixingHistogram(tuple(prepared.names), tuple(lambdas), edges, counts, means, unowned, total)


def fisher_percentiles(
    prepared: Prepared,
    recipe: Recipe,
    *,
    percents: Sequence[int] = PERCENTS,
    exact: int = EXACT,
    sampled: int = SAMPLED,
) -> FisherPercentiles:
    """Percentiles of each raw Fisher over all merged coordinates, linear between neighbours.

    With more than `exact` coordinates, all but the smallest and the largest are those of `sampled` coordinates drawn
    with replacement by the recipe's seed, the same for every model.

    Raises: FisherError unless every Fisher is finite and ≥ 0.
    """
    names = prepared.merged_names
    require_sound_fishers(prepared)
    total = sum(prepared.fishers[0][name].numel() for name in names)
    drawn = None
    if total > exact:
        drawn = numpy.sort(numpy.random.default_rng(recipe.fisher.seed).integers(total, size=sampled))
    floor = float(recipe.fisher.floor)
    values, zeros, at_floor = [], [], []
    for fisher in prepared.fishers:
        flat = [fisher[name].detach().reshape(-1).cpu() for name in names]
        found = numpy.percentile(_entries(flat, drawn), percents)
        ends = {0: min(float(one.min()) for one in flat), 100: max(float(one.max()) for one in flat)}
        values.append([ends.get(percent, value) for percent, value in zip(percents, found, strict=True)])
        zeros.append(sum(int((one == 0).sum()) for one in flat) / total)
        at_floor.append(sum(int((one <= floor).sum()) for one in flat) / total)
    numbers = numpy.array(values), numpy.array(zeros), numpy.array(at_floor)
    return FisherPercentiles(
        tuple(prepared.names), tuple(percents), *numbers, floor, None if drawn is None else sampled
    )


def stacked_pieces(
    tensors: Sequence[Mapping[str, Tensor]], names: Sequence[str], size: int = PIECE
) -> Iterator[Float[Tensor, " M n"]]:
    """All models' coordinates, some at a time, on the CPU in float64."""
    for name in names:
        flat = [own[name].detach().reshape(-1) for own in tensors]
        for start in range(0, flat[0].numel(), size):
            yield torch.stack([one[start : start + size].cpu().double() for one in flat])


def _entries(flat: Sequence[Tensor], drawn: Int[numpy.ndarray, " n"] | None) -> Float[numpy.ndarray, " n"]:
    """All entries, or those at the drawn places, which are sorted."""
    if drawn is None:
        return torch.cat(list(flat)).double().numpy()
    ends = numpy.cumsum([one.numel() for one in flat])
    cuts = numpy.searchsorted(drawn, ends)
    parts, first = [], 0
    for one, end, cut in zip(flat, ends, cuts, strict=True):
        places = torch.from_numpy(drawn[first:cut] - (end - one.numel()))
        parts.append(one[places].double().numpy())
        first = cut
    return numpy.concatenate(parts)
