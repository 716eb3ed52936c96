"""Merges the parameters of several models, one parameter at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from merging.errors import RecipeError, StructureError, quoted, require_choice
from merging.parameters import check_same_structure
from merging.rules import RULES, isotropic
from merging.scales import NORMALISATIONS, check_fishers, fisher_scales, is_within

FAR = 1e60  # from 1, for a Fisher's scale: a product of two such numbers and a Fisher has all its digits
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
    lambdas = checked_settings(len(models), rule, weights, floor=floor, normalise=normalise, zero_rule=zero_rule)
    names = check_same_structure(models)
    needs_fisher = RULES[rule].needs_fisher
    if needs_fisher:
        check_fishers(models[0], fishers, count=len(models))
    if needs_fisher and zero_rule == "base":
        check_base(models[0], base)
    device = torch.device(device) if device is not None else next(iter(models[0].values())).device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    scales = fisher_scales(fishers, names, floor=floor, normalise=normalise) if needs_fisher else None
    combination = Combination(rule, torch.tensor(lambdas, dtype=dtype, device=device), floor, scales, zero_rule)

    merged = {}
    for position, name in enumerate(names):
        values = [model[name] for model in models]
        if not all(value.is_floating_point() for value in values):
            merged[name] = _agreed(name, values).to(device)
            continue
        stacked = torch.stack([value.to(device, dtype) for value in values])
        of_fishers = torch.stack([fisher[name].to(device, dtype) for fisher in fishers]) if needs_fisher else None
        of_base = None if base is None or zero_rule != "base" else base[name].to(device, dtype)
        merged[name] = combination.of(name, stacked, of_fishers, of_base).to(_result_dtype(values))
        if on_progress:
            on_progress((position + 1) / len(names), f"Merging {name}")
    return merged


@dataclass(frozen=True)
class Combination:
    """A rule with all its settings: `weights` λ (M,) of sum 1, `scales` what each floored Fisher is divided by."""

    rule: str
    weights: Tensor
    floor: float = 0.0
    scales: Sequence[float] | None = None
    zero_rule: str = "mean"

    def of(self, name: str, values: Tensor, fishers: Tensor | None = None, base: Tensor | None = None) -> Tensor:
        """One tensor, or a part of it, from all models' `values` (M, *S) and `fishers` (M, *S), which are overwritten.

        Raises: StructureError if a value is not finite.
        """
        weights, fallback = self.weights, None
        if fishers is not None:
            if self.floor > 0:
                fishers.clamp_min_(self.floor)
            weights, divisors = self._factors
            if divisors is not None:
                fishers.div_(divisors.reshape(-1, *[1] * (fishers.dim() - 1)))
            fallback = partial(self._fallback, name, values, base)
        merged = RULES[self.rule].combine(values, weights, fishers, fallback)
        # What is not finite in a model is not finite in the result, but for coordinates of the fallback.
        if not is_within(merged, -math.inf):
            _require_finite(name, values)
        return merged

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor | None]:
        """λ over the scales, in place of one more pass over every Fisher; or, where digits could be lost, λ and the scales."""
        scales = self.weights.new_tensor(self.scales)
        is_safe = self.weights.dtype == torch.float64 and all(1 / FAR < scale < FAR for scale in self.scales)
        return (self.weights / scales, None) if is_safe else (self.weights, scales)

    def _fallback(self, name: str, values: Tensor, base: Tensor | None) -> Tensor:
        _require_finite(name, values)
        if self.zero_rule == "target":
            return values[0]
        return base if self.zero_rule == "base" else isotropic(values, self.weights)


def _require_finite(name: str, values: Tensor) -> None:
    for position, own in enumerate(values, start=1):
        if not is_within(own, -math.inf):
            raise StructureError(
                f'The models cannot be merged: expected finite numbers, got NaN or infinity in "{name}" of model '
                f"{position}. Check that every checkpoint is complete and that its training did not diverge."
            )


def checked_settings(
    count: int, rule: str, weights: Sequence[float] | None, *, floor: float, normalise: str, zero_rule: str
) -> list[float]:
    """λ of sum 1 for `count` models. Raises: RecipeError for settings that have no meaning."""
    require_choice("rule", rule, RULES)
    require_choice("normalisation", normalise, NORMALISATIONS)
    require_choice("zero rule", zero_rule, ZERO_RULES)
    _check_floor(floor)
    if count < 2:
        raise RecipeError(f"Nothing to merge: expected two or more models, got {count}. Add another checkpoint.")
    return normalised_weights(weights if weights is not None else [1.0] * count, count=count)


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


def disagreement(name: str, dtype: torch.dtype) -> StructureError:
    """The error for a tensor that cannot be averaged and differs between the models."""
    return StructureError(
        f'The models cannot be merged: expected "{name}", which holds {dtype}, to be equal in all models, '
        "got different values. Only floating-point tensors can be averaged."
    )


def _agreed(name: str, values: list[Tensor]) -> Tensor:
    if any(not torch.equal(values[0].cpu(), value.cpu()) for value in values[1:]):
        raise disagreement(name, values[0].dtype)
    return values[0]


def _result_dtype(values: list[Tensor]) -> torch.dtype:
    dtype = torch.float32
    for value in values:
        dtype = torch.promote_types(dtype, value.dtype)
    return dtype
