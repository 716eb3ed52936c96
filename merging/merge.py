"""Merges the parameters of several models, one parameter at a time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from merging.errors import StructureError
from merging.layer_merge import LayerMerge
from merging.parameters import check_same_structure
from merging.rules import RULES, RuleSettings, isotropic
from merging.rules.settings import DEFAULTS
from merging.scales import check_fishers, fisher_scales, is_within
from merging.weights import OwnWeights, check_base, checked_settings, needs_base

FAR = 1e60  # from 1, for a Fisher's scale: a product of two such numbers and a Fisher has all its digits

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
    settings: RuleSettings | None = None,
    layer_weights: Mapping[str, Sequence[float]] | None = None,
    layers: LayerMerge | None = None,
    device: str | torch.device | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Tensor]:
    """One set of parameters from several: θ* = Σᵢ λᵢ Fᵢ θᵢ / Σᵢ λᵢ Fᵢ for `rule="fisher"`; the others stand in `RULES`.

    In this order: each Fisher is raised to at least `floor` (in the Fisher's own units, a maximum,
    not a sum), then divided by its `trace` (its sum over all merged parameters), its `l2` norm
    over all of them, or by nothing (`none`); then the rule is applied. Coordinates where Σ λF = 0
    take the λ-weighted `mean`, the `target` (the first model) or the `base`.

    Computed in float64 (on devices without it, in float32 with rescaled coordinates); the result has
    the models' dtype, but never less than float32. `weights` default to equal ones and are divided
    by their sum. A Fisher may hold more names than the models (a task's head); those are not used.
    Tensors that are not floating point must agree and are passed on. `device` is where the sums
    are formed and the result lies; by default where the first model lies.

    `settings` are the rules' own; their scale s gives θ₀ + s(θ* − θ₀), with θ₀ the `base`, for any rule. `layer_weights`
    are other weights for the parameters of some layers, by the names that `merging.parameters.place_of` gives them.
    Rules on whole layers take the `factors` of the Fishers, to which no floor is applied, and the λ-weighted mean of a
    layer for which no factor speaks; `layers` is what they have made of them for an earlier merge of the same models.

    Raises: RecipeError, StructureError, FisherError.
    Source: Matena & Raffel 2022, arXiv:2111.09832; the L2 norm is their published code's.
    """
    settings = settings or RuleSettings()
    lambdas = checked_settings(len(models), rule, weights, floor=floor, normalise=normalise, zero_rule=zero_rule)
    names = check_same_structure(models)
    chosen = RULES[rule]
    if chosen.needs_fisher:
        check_fishers(models[0], fishers, count=len(models))
    if needs_base(rule, zero_rule=zero_rule, scale=settings.scale):
        check_base(models[0], base, rule=rule, scale=settings.scale)
    else:
        base = None
    device = torch.device(device) if device is not None else next(iter(models[0].values())).device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    scales = fisher_scales(fishers, names, floor=floor, normalise=normalise) if chosen.needs_fisher else None
    own_weights = OwnWeights(names, lambdas, layer_weights or {}, like=torch.empty(0, dtype=dtype, device=device))
    by_layer: dict[str, Tensor] = {}
    if chosen.needs_factors:
        factors = [getattr(fisher, "factors", None) for fisher in fishers or []]
        if layers is None or not layers.is_for(rule, settings):
            layers = LayerMerge(models, factors, rule, settings, device=device)
        unfloored = fisher_scales(fishers, names, floor=0.0, normalise=normalise) if scales and floor else scales
        told = partial(_told, on_progress, len(names)) if on_progress else None
        by_layer = layers.merge(own_weights.of, unfloored or [1.0] * len(models), on_layer=told)
        rule = chosen.rest
    combination = Combination(rule, own_weights.of(None), floor, scales, zero_rule, settings)

    merged, is_plain = {}, chosen.is_plain and base is None
    for position, name in enumerate(names):
        values = [model[name] for model in models]
        if not all(value.is_floating_point() for value in values):
            merged[name] = _agreed(name, values).to(device)
            continue
        of_base = None if base is None else base[name].to(device, dtype)
        if name in by_layer:
            found = by_layer[name].to(device, dtype)
        else:
            stacked = torch.stack([value.to(device, dtype) for value in values])
            of_fishers = torch.stack([fisher[name].to(device, dtype) for fisher in fishers]) if scales else None
            own = replace(combination, weights=own_weights.of(name)) if layer_weights else combination
            found = own.of(name, stacked, of_fishers, of_base)
        if settings.scale != 1:
            found = torch.lerp(of_base, found, settings.scale)
        merged[name] = found.to(_result_dtype(values))
        # An average without a base lies between the models, which were looked at.
        if not is_plain and not is_within(merged[name], -math.inf):
            _require_finite(name, values, of_base)
            raise _too_large(name)
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
    settings: RuleSettings = DEFAULTS

    def of(self, name: str, values: Tensor, fishers: Tensor | None = None, base: Tensor | None = None) -> Tensor:
        """One tensor, or a part of it, from all models' `values` (M, *S) and `fishers` (M, *S), which are overwritten.

        Raises: StructureError if a value or one of the base is not finite.
        """
        weights, fallback = self.weights, None
        if fishers is not None:
            if self.floor > 0:
                fishers.clamp_min_(self.floor)
            weights, divisors = self._factors
            if divisors is not None:
                fishers.div_(divisors.reshape(-1, *[1] * (fishers.dim() - 1)))
            fallback = partial(self._fallback, name, values, base)
        merged = RULES[self.rule].combine(values, weights, fishers, fallback, **self._taken(name, base))
        # What is not finite in a model is not finite in the result, but for coordinates of the fallback.
        if not is_within(merged, -math.inf):
            _require_finite(name, values, base)
        return merged

    def _taken(self, name: str, base: Tensor | None) -> dict[str, object]:
        """What the rule takes beside weights and Fishers."""
        rule = RULES[self.rule]
        taken = {field: getattr(self.settings, field) for field in rule.settings if field != "scale"}
        if rule.needs_base:
            taken["base"] = base
            if rule.needs_fisher:
                taken["lambdas"] = self.weights
        return {**taken, "name": name} if "seed" in taken else taken

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


def _told(on_progress: OnProgress, count: int, done: int, name: str) -> None:
    on_progress(min(1.0, done / count), f"Merging {name}")


def _require_finite(name: str, values: Sequence[Tensor], base: Tensor | None = None) -> None:
    owners = [(f"model {position}", own) for position, own in enumerate(values, start=1)]
    for owner, own in [*owners, *([("the base", base)] if base is not None else [])]:
        if not is_within(own, -math.inf):
            raise StructureError(
                f'The models cannot be merged: expected finite numbers, got NaN or infinity in "{name}" of '
                f"{owner}. Check that every checkpoint is complete and that its training did not diverge."
            )


def _too_large(name: str) -> StructureError:
    return StructureError(
        f'The merge cannot be stored: expected numbers within float32, got larger ones in "{name}". Choose a smaller scale.'
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
