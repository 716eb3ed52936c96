"""What ways of merging give and what they take: points of score against cost, and those that no other beats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from merging.layer_factors import Factors
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.rules import RULES
from merging.weights import needs_base

COSTS = ("seconds", "memory_bytes", "examples")


@dataclass(frozen=True)
class Tradeoff:
    """One method: its mean `score`, and what it takes for all models together.

    `seconds` of the estimates and of the merge; `memory_bytes` of what the merge reads beside the models: Fishers, Kronecker
    factors, the base; `examples` that the estimates read. `models` are kept for predicting: one of a merge, else all.
    """

    method: str
    score: float
    seconds: float
    memory_bytes: int
    examples: int
    models: int

    def cost(self, kind: str) -> float:
        """One of `COSTS`."""
        return float(getattr(self, kind))

    @property
    def is_merge(self) -> bool:
        """Whether one model comes out; the experts and their ensemble take nothing beforehand, but keep all models."""
        return self.method in RULES


def tradeoffs(
    prepared: Prepared, recipe: Recipe, means: Mapping[str, float], merge_seconds: Mapping[str, float]
) -> list[Tradeoff]:
    """A point for each method of `means`, in its order; `merge_seconds` by rule, as a result of the pipeline has both.

    Factors come with the Fisher in one pass, so a rule that takes them takes the seconds of both, whether it reads both or not;
    of their bytes only those count that it reads.
    """
    return [
        _of_rule(prepared, recipe, method, mean, merge_seconds[method])
        if method in RULES
        else Tradeoff(method, mean, 0.0, 0, 0, len(prepared.names))
        for method, mean in means.items()
    ]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of some (cost, score) no other beats, by being cheaper at no lower score or better at no higher cost."""

    def beats(other: tuple[float, float], own: tuple[float, float]) -> bool:
        return other != own and other[0] <= own[0] and other[1] >= own[1]

    kept = [index for index, own in enumerate(points) if not any(beats(other, own) for other in points)]
    return sorted(kept, key=lambda index: points[index])


def _of_rule(prepared: Prepared, recipe: Recipe, name: str, mean: float, merge_s: float) -> Tradeoff:
    rule, seconds, size, examples = RULES[name], merge_s, 0, 0
    for position, fisher in enumerate(prepared.fishers):
        if rule.needs_fisher:
            size += sum(tensor.nbytes for tensor in fisher.values())
        if rule.needs_factors:
            seconds += fisher.factors.seconds
            size += _factor_bytes(prepared, position, name)
        if rule.needs_fisher or rule.needs_factors:
            seconds += fisher.seconds
            examples += fisher.examples
    if needs_base(name, zero_rule=recipe.fisher.zero_rule, scale=recipe.settings.scale):
        size += sum(tensor.nbytes for tensor in prepared.parameters()[0].values())
    return Tradeoff(name, mean, seconds, size, examples, 1)


def _factor_bytes(prepared: Prepared, position: int, name: str) -> int:
    """Of the factors that a rule reads: A, or A weighted by ‖g‖²; and G."""
    parts = prepared.kept(f"factor bytes {position}", lambda: _part_bytes(prepared.fishers[position].factors))
    size = parts["weighted" if RULES[name].weighted else "inputs"]
    return size + (parts["outputs"] if name == "kfac" else 0)


def _part_bytes(factors: Factors) -> dict[str, int]:
    """Read once: those of large models lie in a file."""
    total = dict.fromkeys(("inputs", "outputs", "weighted"), 0)
    for own in factors.values():
        for part in total:
            total[part] += getattr(own, part).nbytes
    return total
