"""Merges the parameters of several models, one parameter at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from merging.errors import FisherError, RecipeError, StructureError, quoted, require_choice
from merging.parameters import check_same_structure
from merging.rules import RULES, isotropic

NORMALISATIONS = ("trace", "l2", "none")
ZERO_RULES = ("mean", "target", "base")

OnProgress = Callable[[float, str], None]


@torch.no_grad()
def merge_parameters(
    models: Sequence[Mapping[str, Tensor]],
    rule: str = "fisher",
    weights: Sequence[float] | None = None,
    *,
    fishers: Sequence[Mapping[str, Tensor]] | None = None,
    floor: float = 0.0,
    normalise: str = "trace",
    zero_rule: str = "mean",
    base: Mapping[str, Tensor] | None = None,
    device: str | torch.device | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Tensor]:
    """One set of parameters from several: θ* = Σᵢ λᵢ Fᵢ θᵢ / Σᵢ λᵢ Fᵢ for `rule="fisher"`.

    In this order: each Fisher is raised to at least `floor` (in the Fisher's own units, a maximum,
    not a sum), then divided by its `trace` (its sum over all merged parameters), its `l2` norm
    over all of them, or by nothing (`none`); then the rule is applied. Coordinates where Σ λF = 0
    take the λ-weighted `mean`, the `target` (the first model) or the `base`.

    Computed in float64 (on devices without it, in float32 with rescaled coordinates); the result has
    the models' dtype, but never less than float32. `weights` default to equal ones and are divided
    by their sum. A Fisher may hold more names than the models (a task's head); those are not used.
    Tensors that are not floating point must agree and are passed on. `device` is where the sums
    are formed and the result lies; by default where the first model lies.

    Raises: RecipeError, StructureError, FisherError.
    Source: Matena & Raffel 2022, arXiv:2111.09832; the L2 norm is their published code's.
    """
    require_choice("rule", rule, RULES)
    require_choice("normalisation", normalise, NORMALISATIONS)
    require_choice("zero rule", zero_rule, ZERO_RULES)
    _check_floor(floor)
    if len(models) < 2:
        raise RecipeError(f"Nothing to merge: expected two or more models, got {len(models)}. Add another checkpoint.")
    lambdas = normalised_weights(weights if weights is not None else [1.0] * len(models), count=len(models))
    names = check_same_structure(models)
    needs_fisher = RULES[rule].needs_fisher
    if needs_fisher:
        check_fishers(models[0], fishers, count=len(models))
    if needs_fisher and zero_rule == "base":
        check_base(models[0], base)
    device = torch.device(device) if device is not None else next(iter(models[0].values())).device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    lambda_vector = torch.tensor(lambdas, dtype=dtype, device=device)
    scales = fisher_scales(fishers, names, floor=floor, normalise=normalise) if needs_fisher else None

    merged = {}
    for position, name in enumerate(names):
        values = [model[name] for model in models]
        if not all(value.is_floating_point() for value in values):
            merged[name] = _agreed(name, values).to(device)
            continue
        stacked = torch.stack([value.to(device, dtype) for value in values])
        if not _within(stacked, -math.inf):
            raise StructureError(
                f'The models cannot be merged: expected finite numbers, got NaN or infinity in "{name}". '
                "Check that every checkpoint is complete and that its training did not diverge."
            )
        curvature, fallback = None, None
        if needs_fisher:
            floored = [fisher[name].to(device, dtype).clamp_min(floor) for fisher in fishers]
            curvature = torch.stack([tensor / scale for tensor, scale in zip(floored, scales, strict=True)])
            of_base = None if base is None else base[name]
            fallback = partial(_fallback, stacked, lambda_vector, zero_rule, of_base)
        result = RULES[rule].combine(stacked, lambda_vector, curvature, fallback)
        merged[name] = result.to(_result_dtype(values))
        if on_progress:
            on_progress((position + 1) / len(names), f"Merging {name}")
    return merged


def normalised_weights(weights: Sequence[float], *, count: int) -> list[float]:
    """λ divided by its sum.

    Raises: RecipeError if there is not one finite number ≥ 0 for each model, or if all are zero.
    """
    given = [float(weight) for weight in weights]
    if len(given) != count:
        raise RecipeError(
            f"The weights do not fit: expected one for each of the {count} models, got {len(given)}. "
            "Give every model a weight."
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in given):
        raise RecipeError(
            f"The weights cannot be used: expected finite numbers of 0 or more, got {given}. Set every λ to 0 or more."
        )
    largest = max(given)
    if largest == 0:
        raise RecipeError(
            f"The weights cannot be used: expected at least one above 0, got {given}. Raise one of the λ sliders."
        )
    scaled = [weight / largest for weight in given]
    return [weight / math.fsum(scaled) for weight in scaled]


def check_fishers(
    parameters: Mapping[str, Tensor], fishers: Sequence[Mapping[str, Tensor]] | None, *, count: int
) -> None:
    """Raises: FisherError unless there is one Fisher for each model, of its shapes, finite and ≥ 0."""
    if fishers is None or len(fishers) != count:
        raise FisherError(
            f"Fisher merging needs the models' Fishers: expected {count}, got {len(fishers or [])}. "
            'Estimate them with merging.diagonal_fisher, or choose rule="isotropic".'
        )
    for position, fisher in enumerate(fishers, start=1):
        check_fisher(parameters, fisher, f"Fisher {position}")


def check_fisher(parameters: Mapping[str, Tensor], fisher: Mapping[str, Tensor], what: str) -> None:
    """Raises: FisherError unless `fisher` has the parameters' names and shapes and is finite and ≥ 0."""
    floating = [name for name, tensor in parameters.items() if tensor.is_floating_point()]
    missing = [name for name in floating if name not in fisher]
    if missing:
        raise FisherError(
            f"{what} does not belong to this model: expected a tensor for every parameter, got none for "
            f"{quoted(missing)}. Estimate the Fisher again for this checkpoint."
        )
    for name in floating:
        tensor = fisher[name]
        if tuple(tensor.shape) != tuple(parameters[name].shape):
            raise FisherError(
                f'{what} does not belong to this model: expected shape {list(parameters[name].shape)} for "{name}", '
                f"got {list(tensor.shape)}. Estimate the Fisher again for this checkpoint."
            )
        if not _within(tensor, 0.0):
            raise FisherError(
                f'{what} cannot be used: expected finite numbers of 0 or more, got others in "{name}". '
                "Estimate the Fisher again."
            )


def _within(tensor: Tensor, lowest: float) -> bool:
    """Whether all values are finite and at least `lowest` (above it, where it is −∞); in one pass, NaN included."""
    if tensor.numel() == 0:
        return True
    smallest, largest = (float(value) for value in torch.aminmax(tensor))
    return largest < math.inf and (smallest >= lowest if lowest > -math.inf else smallest > lowest)


def _check_floor(floor: float) -> None:
    if not (isinstance(floor, int | float) and math.isfinite(floor) and floor >= 0):
        raise RecipeError(f"The floor cannot be used: expected a finite number of 0 or more, got {floor}. Try 0.")


def check_base(parameters: Mapping[str, Tensor], base: Mapping[str, Tensor] | None) -> None:
    """Raises: RecipeError if there is no base; StructureError unless it has the parameters' names and shapes."""
    if base is None:
        raise RecipeError(
            'zero_rule "base" needs the base checkpoint: expected its parameters, got none. '
            'Name the base in the recipe, or choose "mean" or "target".'
        )
    wrong = [name for name in parameters if name not in base or base[name].shape != parameters[name].shape]
    if wrong:
        raise StructureError(
            f"The base does not fit the models: expected the same parameters, got others for {quoted(wrong)}. "
            "Name the checkpoint that the models were fine-tuned from."
        )


def fisher_scales(
    fishers: Sequence[Mapping[str, Tensor]], names: Sequence[str], *, floor: float, normalise: str
) -> list[float]:
    """What each model's floored Fisher is divided by, over all merged parameters; 1 where it is zero everywhere."""
    scales = []
    for fisher in fishers:
        floored = [_widest(fisher[name]).clamp_min(floor) for name in names if name in fisher]
        if normalise == "trace":
            scale = math.fsum(float(tensor.sum()) for tensor in floored)
        elif normalise == "l2":
            # Relative to the largest entry, whose square may be 0 or infinite.
            peak = max((float(tensor.max()) for tensor in floored if tensor.numel()), default=0.0) or 1.0
            scale = peak * math.hypot(*(float(torch.linalg.vector_norm(tensor / peak)) for tensor in floored))
        else:
            scale = 1.0
        scales.append(scale if scale > 0 else 1.0)
    return scales


def _widest(tensor: Tensor) -> Tensor:
    """In float64; on a device without it, on the CPU."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _fallback(stacked: Tensor, lambdas: Tensor, zero_rule: str, base: Tensor | None) -> Tensor:
    if zero_rule == "target":
        return stacked[0]
    if zero_rule == "base":
        return base.to(stacked.device, stacked.dtype)
    return isotropic(stacked, lambdas)


def _agreed(name: str, values: list[Tensor]) -> Tensor:
    if any(not torch.equal(values[0].cpu(), value.cpu()) for value in values[1:]):
        raise StructureError(
            f'The models cannot be merged: expected "{name}", which holds {values[0].dtype}, to be equal in all models, '
            "got different values. Only floating-point tensors can be averaged."
        )
    return values[0]


def _result_dtype(values: list[Tensor]) -> torch.dtype:
    dtype = torch.float32
    for value in values:
        dtype = torch.promote_types(dtype, value.dtype)
    return dtype
