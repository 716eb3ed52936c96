"""How far each layer has moved: models and merges from their base, and from the isotropic merge."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from merging.checkpoints import body_prefix
from merging.parameters import KINDS, layers_of, place_of
from merging.prepared import Prepared
from merging.recipe import Recipe

GROUPS = ("layer", "kind")


@dataclass(frozen=True, eq=False)
class Distances:
    """‖θ − θ₀‖ / ‖θ₀‖ of each of `series` (models, then merges) in each of `groups` (G layers or kinds).

    `from_base` (S, G) is None without a base; `from_isotropic` (S, G). NaN where θ₀ is 0 and θ is not.
    """

    groups: tuple[str, ...]
    series: tuple[str, ...]
    from_base: Float[numpy.ndarray, " S G"] | None
    from_isotropic: Float[numpy.ndarray, " S G"]


def distances_moved(prepared: Prepared, recipe: Recipe, *, by: str = "layer", download: bool = False) -> Distances:
    """Of every model, the isotropic merge and the Fisher merge at the recipe's weights, over the body's parameters."""
    prefix = body_prefix(prepared.modules[0])
    names = [name for name in prepared.merged_names if name.startswith(prefix)]
    bodies = dict(zip(prepared.names, prepared.parameters(), strict=True))
    merges = {rule: prepared.merge(recipe, rule=rule) for rule in ("isotropic", "fisher")}
    groups = grouped(names, by)
    base = base_of(prepared, recipe, download=download)
    series = [*bodies.values(), *merges.values()]
    return Distances(
        groups=tuple(groups),
        series=(*bodies, *merges),
        from_base=None if base is None else _all_moved(series, base, groups),
        from_isotropic=_all_moved(series, merges["isotropic"], groups),
    )


def base_of(prepared: Prepared, recipe: Recipe, *, download: bool = False) -> Mapping[str, Tensor] | None:
    """The parameters of the recipe's base; None without one, or where it would have to be downloaded unasked."""
    if not recipe.base or not (download or is_at_hand(recipe)):
        return None
    return prepared.base(replace(recipe, fisher=replace(recipe.fisher, zero_rule="base")))


def is_at_hand(recipe: Recipe) -> bool:
    """Whether the recipe's base lies on this machine, or is needed by its merge anyway."""
    base = recipe.base or ""
    return base.startswith("zoo:") or recipe.fisher.zero_rule == "base" or Path(base).expanduser().is_dir()


def grouped(names: Sequence[str], by: str) -> dict[str, list[str]]:
    """The parameters of each layer, from input to output, or of each kind."""
    keys = layers_of(names) if by == "layer" else KINDS
    groups = {key: [name for name in names if getattr(place_of(name), by) == key] for key in keys}
    return {key: own for key, own in groups.items() if own}


def moved(parameters: Mapping[str, Tensor], origin: Mapping[str, Tensor], names: Sequence[str]) -> float:
    """‖θ − θ₀‖ / ‖θ₀‖ over some parameters; NaN where θ₀ is 0 and θ is not, 0 where both are."""
    away = math.hypot(*(_norm(parameters[name], origin[name]) for name in names))
    size = math.hypot(*(_norm(origin[name]) for name in names))
    return away / size if size > 0 else (0.0 if away == 0 else math.nan)


def _all_moved(
    series: Sequence[Mapping[str, Tensor]], origin: Mapping[str, Tensor], groups: Mapping[str, Sequence[str]]
) -> Float[numpy.ndarray, " S G"]:
    return numpy.array([[moved(own, origin, names) for names in groups.values()] for own in series])


def _norm(tensor: Tensor, minus: Tensor | None = None) -> float:
    wide = tensor.detach().cpu().double()
    return float(torch.linalg.vector_norm(wide if minus is None else wide - minus.detach().cpu().double()))
