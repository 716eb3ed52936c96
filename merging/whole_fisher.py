"""The whole Fisher matrix of a small model: every product of two parameters' gradients."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from merging.errors import FisherError, StructureError, quoted
from merging.gradients.factors import Draws, columns_for
from merging.gradients.outputs import likelihood_of, logits_of
from merging.gradients.per_example import examples_of, gradients_of, requiring_gradients
from merging.gradients.readiness import frozen
from merging.rules.full import MOST_PARAMETERS, full
from merging.rules.settings import RuleSettings
from merging.weights import normalised_weights


@dataclass(frozen=True, eq=False)
class FullFisher:
    """F (P, P) in nats², a mean over `examples`, of the parameters `names` laid end to end."""

    matrix: Float[Tensor, " P P"]
    names: tuple[str, ...]
    examples: int


def full_fisher(
    model: nn.Module, batches: Iterable[Mapping[str, object]], names: Iterable[str] | None = None
) -> FullFisher:
    """F = 1/N Σₙ E_{y∼p(y|xₙ,θ)} [∇ log p ∇ log pᵀ], exact over the labels, one example at a time, summed in float64.

    `names` chooses parameters (a body), all by default. For small models: the matrix has P² numbers.

    Raises: FisherError for more than 4096 parameters, without any, for unknown names, or without examples.
    Source: Matena & Raffel 2022, equation 2.
    """
    known = dict(model.named_parameters())
    chosen = {name: known.get(name) for name in (known if names is None else names)}
    if not chosen or any(tensor is None for tensor in chosen.values()):
        unknown = [name for name, tensor in chosen.items() if tensor is None]
        raise FisherError(
            f"The Fisher cannot be estimated: expected parameters of the model, got {quoted(unknown)}. "
            f"Choose among {quoted(known)}."
        )
    count = sum(tensor.numel() for tensor in chosen.values())
    if count > MOST_PARAMETERS:
        raise FisherError(
            f"A whole Fisher matrix is out of reach: expected at most {MOST_PARAMETERS} parameters, got {count}. "
            'Choose the rule "kfac".'
        )
    dtype = next(iter(chosen.values())).dtype
    total, examples = torch.zeros(count, count, dtype=torch.float64), 0
    with torch.inference_mode(False), frozen(model), requiring_gradients(model, chosen) as parameters:
        for example in (one for batch in batches for one in examples_of(_inputs(batch, dtype))):
            logits = logits_of(model(**example))
            likelihood = likelihood_of(model, logits, 1)
            columns = columns_for(logits, "exact", draws=Draws(0, range(1)), likelihood=likelihood)
            for place in range(columns.count):
                found = gradients_of(logits, parameters, columns.column(place))
                flat = [
                    found.get(name, torch.zeros_like(own)).double().reshape(-1).cpu() for name, own in chosen.items()
                ]
                total += torch.outer(torch.cat(flat), torch.cat(flat))
            examples += 1
    if examples == 0:
        raise FisherError("The Fisher cannot be estimated: expected at least one example, got none. Check the split.")
    return FullFisher(total / examples, tuple(chosen), examples)


def merge_full(
    models: list[Mapping[str, Tensor]],
    fishers: list[FullFisher],
    weights: list[float] | None = None,
    *,
    damping: float = 0.0,
) -> dict[str, Tensor]:
    """θ* = (Σᵢ λᵢ Fᵢ)⁻¹ Σᵢ λᵢ Fᵢ θᵢ for the parameters that the Fishers are of; see `merging.rules.full`.

    The result has the models' dtype, but never less than float32.

    Raises: RecipeError, FisherError, StructureError.
    """
    lambdas = normalised_weights(weights or [1.0] * len(models), count=len(models))
    RuleSettings(damping=damping)  # refuses what is none
    names = fishers[0].names if fishers else ()
    if not names or len(fishers) != len(models) or any(fisher.names != names for fisher in fishers):
        raise FisherError(
            f"The whole Fishers do not fit: expected {len(models)} of the same parameters, got {len(fishers)} of "
            f"{len({fisher.names for fisher in fishers})} kinds. Estimate them for the same names."
        )
    _check_models(models, fishers[0])
    flat = [torch.cat([model[name].detach().double().reshape(-1) for name in names]) for model in models]
    stacked = torch.stack([fisher.matrix for fisher in fishers])
    merged = full(torch.stack(flat), torch.tensor(lambdas, dtype=torch.float64), stacked, damping=damping)
    parts = merged.split([models[0][name].numel() for name in names])
    return {
        name: part.view(models[0][name].shape).to(torch.promote_types(models[0][name].dtype, torch.float32))
        for name, part in zip(names, parts, strict=True)
    }


def _check_models(models: list[Mapping[str, Tensor]], fisher: FullFisher) -> None:
    shapes = {name: models[0][name].shape if name in models[0] else None for name in fisher.names}
    for position, model in enumerate(models, start=1):
        wrong = [
            name for name, shape in shapes.items() if shape is None or name not in model or model[name].shape != shape
        ]
        if wrong or sum(model[name].numel() for name in shapes) != len(fisher.matrix):
            raise StructureError(
                f"The models do not fit their Fishers: expected {quoted(shapes)} with {len(fisher.matrix)} numbers, "
                f"model {position} has others. Name checkpoints of one architecture."
            )
        if not all(bool(model[name].isfinite().all()) for name in shapes):
            raise StructureError(
                f"The models cannot be merged: expected finite numbers, got NaN or infinity in model {position}."
            )


def _inputs(batch: Mapping[str, object], dtype: torch.dtype) -> dict[str, object]:
    """The batch without labels, its numbers in the model's dtype."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    floats = {n: v.to(dtype) for n, v in inputs.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return {**inputs, **floats}
