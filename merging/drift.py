"""How far a merge has gone from the mean of its models: a guard for rules that do not average."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from merging.recipe import Recipe
from merging.rules import RULES

# Measured on the embedded pools: sound merges stay below 4, those that score at random lie beyond 8.
FAR = 5.0
# Of the mean's norm: models that are no farther from it are equal in float32.
ROUNDING = 1e-6


def may_run_away(rule: str, recipe: Recipe) -> bool:
    """Whether a merge may leave the box that its models span."""
    chosen = RULES[rule]
    return chosen.needs_factors or chosen.needs_base or recipe.settings.scale > 1


@torch.no_grad()
def drift(merged: Mapping[str, Tensor], models: Sequence[Mapping[str, Tensor]]) -> float:
    """‖θ* − θ̄‖ / √(mean over i of ‖θᵢ − θ̄‖²), θ̄ the plain mean of the models; 0 where all are equal, up to rounding."""
    gone, apart, size = 0.0, 0.0, 0.0
    for name, own in merged.items():
        if own.is_floating_point():
            others = [model[name].to(own) for model in models]
            mean = sum(others) / len(others)
            gone += float((own - mean).square().sum())
            size += float(mean.square().sum())
            apart += sum(float((other - mean).square().sum()) for other in others) / len(others)
    return math.sqrt(gone / apart) if apart > ROUNDING**2 * size else 0.0


def drift_notes(drifts: Mapping[str, float]) -> list[str]:
    """A sentence for each rule that has run away."""
    return [
        f"“{RULES[rule].title}” has run away from the models: it lies {ratio:.1f} times as far from their mean as they do "
        f"(beyond {FAR:g} merges rarely work). {_remedy(rule)}"
        for rule, ratio in drifts.items()
        if ratio > FAR
    ]


def _remedy(rule: str) -> str:
    raised = next((name for name in ("damping", "density", "prior") if name in RULES[rule].settings), None)
    return f"Raise the {raised}, or lower the scale." if raised else "Lower the scale."
