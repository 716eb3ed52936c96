"""How alike tasks are, by the Fishers of their models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from jaxtyping import Float
from torch import Tensor, nn

from merging.checkpoints import body_prefix
from merging.diagnostics.maps import require_sound_fishers
from merging.diagnostics.mixing import stacked_pieces
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.scales import fisher_scales


@dataclass(frozen=True, eq=False)
class Similarity:
    """`cosine` (M, M) of the Fishers over the body's coordinates, 1 for alike; `task2vec` (M, M), a distance, 0 for alike.

    NaN beside a model whose Fisher is zero everywhere.
    """

    models: tuple[str, ...]
    cosine: Float[numpy.ndarray, " M M"]
    task2vec: Float[numpy.ndarray, " M M"]


def similarity(prepared: Prepared, recipe: Recipe) -> Similarity:
    """Compares the Fishers of all pairs of models, heads left out, normalised as in the merge (a cosine does not care).

    Raises: FisherError unless every Fisher is finite and ≥ 0.
    """
    require_sound_fishers(prepared)
    model = prepared.modules[0]
    names = [name for name in prepared.merged_names if name.startswith(body_prefix(model))]
    scales = fisher_scales(prepared.fishers, names, floor=0.0, normalise=recipe.fisher.normalise)
    axes = unit_axes(model, names)
    units = [unit_means(fisher, names, axes) / scale for fisher, scale in zip(prepared.fishers, scales, strict=True)]
    distances = numpy.array([[task2vec_distance(one, other) for other in units] for one in units])
    return Similarity(tuple(prepared.names), cosines(prepared.fishers, names), distances)


def cosines(fishers: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> Float[numpy.ndarray, " M M"]:
    """⟨Fa, Fb⟩ / (‖Fa‖ ‖Fb‖) over the coordinates of these parameters; NaN beside a Fisher that is zero everywhere."""
    largest = [max(float(fisher[name].max()) for name in names) or 1.0 for fisher in fishers]
    gram = numpy.zeros((len(fishers), len(fishers)))
    for piece in stacked_pieces(fishers, names):
        # A square may be too small to be a number; a common factor of a Fisher changes nothing.
        scaled = piece / piece.new_tensor(largest)[:, None]
        gram += (scaled @ scaled.T).numpy()
    norms = numpy.sqrt(numpy.diag(gram))
    with numpy.errstate(invalid="ignore", divide="ignore"):
        return numpy.minimum(gram / numpy.outer(norms, norms), 1.0)


def task2vec_distance(first: Float[numpy.ndarray, " U"], second: Float[numpy.ndarray, " U"]) -> float:
    """1 − cos(Fa/(Fa + Fb), Fb/(Fa + Fb)): how far apart two tasks are, each entry counted by its part, not by its size.

    Entries where both are 0 are left out; NaN if one Fisher is 0 everywhere.
    Source: Achille et al. 2019, Task2Vec, equation 5 (symmetric distance).
    """
    total = first + second
    there = total > 0
    one, other = first[there] / total[there], second[there] / total[there]
    size = float(numpy.linalg.norm(one) * numpy.linalg.norm(other))
    return max(0.0, 1 - float(one @ other) / size) if size > 0 else float("nan")


def unit_axes(model: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """For each parameter the axis of its output units: the first of a linear or convolutional weight, else the last."""
    axes = {}
    for name in names:
        owner, parameter = model.get_submodule(name.rpartition(".")[0]), model.get_parameter(name)
        # Transformers' Conv1D, of GPT-2, holds its weight the other way round; tokens and positions are inputs.
        is_turned = isinstance(owner, nn.Embedding) or type(owner).__name__ == "Conv1D" or parameter.shape[0] == 1
        axes[name] = parameter.dim() - 1 if is_turned else 0
    return axes


def unit_means(
    fisher: Mapping[str, Tensor], names: Sequence[str], axes: Mapping[str, int]
) -> Float[numpy.ndarray, " U"]:
    """The Fisher's mean over each output unit of each parameter."""
    parts = []
    for name in names:
        rows = fisher[name].detach().cpu().double().movedim(axes[name], 0)
        parts.append(rows.reshape(rows.shape[0], -1).mean(1).numpy())
    return numpy.concatenate(parts)
