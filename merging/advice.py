"""Which rule to try, and what to beware of: rules of thumb, each from a measurement that the README's "How to choose" shows."""

import statistics
from dataclasses import dataclass

from merging.diagnostics.distances import base_of, moved
from merging.diagnostics.similarity import cosines
from merging.pipeline import Result
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.rules import RULES
from merging.scales import fisher_scales

NOTE, BEWARE = "note", "beware"
# Of its way from chance to perfection, beside the median expert's: below it an expert counts as weak.
WEAK = 0.5
# Distances from the base, or sizes of Fishers, whose ratio is beyond it count as unequal.
UNEQUAL = 3.0
# A cosine of Fishers beyond which they weight alike.
ALIKE = 0.95
# Points of accuracy that the average of the models may lie below the experts before they count as interfering.
INTERFERING = 0.05
FEW_EXAMPLES = 64


@dataclass(frozen=True)
class Advice:
    """One sentence: a `note` or something to `beware` of, and the rule that it speaks for, if it does."""

    level: str
    text: str
    rule: str | None = None


@dataclass(frozen=True)
class _Facts:
    """What no weight changes: the sizes of the Fishers, and their least cosine."""

    sizes: list[float]
    least_cosine: float | None


def advise(result: Result) -> list[Advice]:
    """What the models, their Fishers and their scores say about the choice of a rule; the most important first."""
    prepared, recipe = result.prepared, result.recipe
    facts = prepared.kept("advice", lambda: _facts(prepared))
    is_one_task = any(len(entry.owners) == len(prepared.names) for entry in prepared.tasks)
    found = [*_weak_experts(result), *_unequal(facts.sizes, _moved(prepared, recipe), prepared.names, recipe)]
    found += _one_task(result) if is_one_task else _different_tasks(result)
    if facts.least_cosine is not None and facts.least_cosine > ALIKE and recipe.rule == "fisher":
        text = (
            f"The Fishers are alike (cosine {facts.least_cosine:.2f} and more): Fisher merging is close to the average."
        )
        found.append(Advice(NOTE, text))
    return found


def _names(prepared: Prepared) -> list[str]:
    return [name for name in prepared.merged_names if prepared.parameters()[0][name].is_floating_point()]


def _facts(prepared: Prepared) -> _Facts:
    if not prepared.fishers:
        return _Facts([], None)
    names = _names(prepared)
    pairs = cosines(prepared.fishers, names)
    least = float(pairs.min()) if pairs.min() == pairs.min() else None
    return _Facts(fisher_scales(prepared.fishers, names, floor=0.0, normalise="trace"), least)


def _moved(prepared: Prepared, recipe: Recipe) -> list[float] | None:
    """How far each model is from the base; None where that is not at hand."""
    base = base_of(prepared, recipe)
    if base is None:
        return None

    def found() -> list[float]:
        own = prepared.parameters()
        # A merged head may have other sizes than the base's.
        fit = [name for name in _names(prepared) if name in base and base[name].shape == own[0][name].shape]
        return [moved(model, base, fit) for model in own]

    return prepared.kept(f"moved from {recipe.base}", found)


def _weak_experts(result: Result) -> list[Advice]:
    """Experts that are much nearer to guessing than the others are, on their own tasks."""
    skills = {}
    for entry in result.prepared.tasks:
        chance = 1 / max(2, len(result.prepared.checkpoints[entry.head].label_names))
        for index in entry.owners:
            name = result.prepared.names[index]
            if entry.name in result.singles.get(name, {}):
                skills[name] = (result.singles[name][entry.name].value - chance) / (1 - chance)
    if len(skills) < 2:
        return []
    median = statistics.median(skills.values())
    weak = [name for name, skill in skills.items() if skill < WEAK * median] if median > 0 else []
    return [
        Advice(
            BEWARE,
            f"“{name}” is weak on its own task ({100 * skills[name]:.0f} % of the way from guessing to perfect, the middle expert "
            f"{100 * median:.0f} %): an unsure model has a large Fisher and takes parameters from good ones. Lower its λ, or "
            "leave it out.",
        )
        for name in weak
    ]


def _unequal(sizes: list[float], ways: list[float] | None, names: list[str], recipe: Recipe) -> list[Advice]:
    found = []
    if ways and min(ways) > 0 and max(ways) > UNEQUAL * min(ways):
        near, far = (names[ways.index(own)] for own in (min(ways), max(ways)))
        text = (
            f"“{far}” has moved {max(ways) / min(ways):.0f} times as far from the base as “{near}”: equal weights are "
            "no fair mix. Draw the curve over λ before you choose."
        )
        found.append(Advice(BEWARE, text))
    sizes = [size for size in sizes if size > 0]
    uses = any(RULES[rule].needs_fisher for rule in recipe.rules)
    if sizes and uses and recipe.fisher.normalise == "none" and max(sizes) > UNEQUAL * min(sizes):
        text = (
            f"The Fishers' sizes differ {max(sizes) / min(sizes):.0f} times, and they are not normalised: the least confident model "
            "decides most parameters. Choose trace."
        )
        found.append(Advice(BEWARE, text))
    return found


def _one_task(result: Result) -> list[Advice]:
    found = []
    if "ensemble" in result.scores:
        text = (
            f"All models answer one task: the output ensemble ({100 * result.mean('ensemble'):.1f} %) is the safe choice where its "
            "cost is no matter. Rules of merging differ little here."
        )
        found.append(Advice(NOTE, text))
    experts, plain = (result.mean(method) if method in result.scores else None for method in ("experts", "isotropic"))
    if experts is not None and plain is not None and plain < experts - INTERFERING:
        text = (
            f"The average ({100 * plain:.1f} %) lies below the single models ({100 * experts:.1f} %): these runs do not share a basin, "
            "and no rule makes up for that. Use the ensemble."
        )
        found.append(Advice(BEWARE, text))
    return found


def _different_tasks(result: Result) -> list[Advice]:
    recipe, found = result.recipe, []
    experts, plain = (result.mean(method) if method in result.scores else None for method in ("experts", "isotropic"))
    is_lossy = experts is not None and plain is not None and plain < experts - INTERFERING
    if "kfac" not in recipe.rules and (is_lossy or plain is None):
        text = (
            "Different tasks of one base that get in each other's way: try K-FAC, which was the best rule at equal weights on "
            "all four sets of models where that was measured."
        )
        found.append(Advice(NOTE, text, "kfac"))
    own = result.mean(recipe.rule)
    is_stretched = recipe.settings.scale != 1
    if (
        is_lossy
        and recipe.base
        and not is_stretched
        and not RULES[recipe.rule].needs_factors
        and own < experts - INTERFERING
    ):
        text = (
            "With the base known, a scale of 1.5 to 2 often brings averages and Fisher merging closer to the experts."
        )
        found.append(Advice(NOTE, text))
    examples = recipe.fisher.examples
    if recipe.needs_fishers and examples != "all" and int(examples) < FEW_EXAMPLES:
        text = f"{examples} examples are few for a Fisher: from {FEW_EXAMPLES} on more of them change little."
        found.append(Advice(NOTE, text))
    return found
