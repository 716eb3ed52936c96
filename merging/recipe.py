"""A recipe: everything that decides a merge, as one YAML file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from merging.documents import Unreadable, is_plain, read_text, read_yaml, write_yaml
from merging.errors import RecipeError, nearest, quoted, require_choice, shown
from merging.gradients import LABELS
from merging.headers import pinned_reference
from merging.merge import NORMALISATIONS, ZERO_RULES, normalised_weights
from merging.pools import Pool
from merging.rules import RULES
from merging.tasks import SPLITS

HEADS = ("keep", "merge")
DEVICES = ("auto", "cuda", "mps", "cpu")
COMPARISONS = ("isotropic", "ensemble", "experts")
# What every generator of random numbers takes.
LARGEST_SEED = 2**31


@dataclass(frozen=True)
class ModelEntry:
    """One model: its checkpoint, the task that its Fisher is estimated on, and its λ (before normalisation)."""

    checkpoint: str
    task: str | Mapping[str, object]
    weight: float = 1.0


@dataclass(frozen=True)
class FisherSettings:
    """How Fishers are estimated (`labels`, `examples`, `seed`) and used (`floor`, `normalise`, `zero_rule`)."""

    labels: str = "auto"
    examples: int | str = 256
    seed: int = 0
    floor: float = 0.0
    normalise: str = "trace"
    zero_rule: str = "mean"


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated: a split, how many of its rows, and `tasks` beside the models' own (shifted test sets)."""

    split: str = "test"
    examples: int | str = "all"
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a merge."""

    models: tuple[ModelEntry, ...]
    rule: str = "fisher"
    fisher: FisherSettings = field(default_factory=FisherSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    heads: str = "keep"
    device: str = "auto"
    base: str | None = None
    compare: tuple[str, ...] = COMPARISONS
    version: int = 1

    def __post_init__(self) -> None:
        _check(self)

    @property
    def weights(self) -> list[float]:
        """The models' λ as set, before normalisation."""
        return [model.weight for model in self.models]

    def with_weights(self, weights: Sequence[float]) -> "Recipe":
        """The same recipe with other λ."""
        models = tuple(replace(model, weight=weight) for model, weight in zip(self.models, weights, strict=True))
        return replace(self, models=models)

    def pinned(self) -> "Recipe":
        """The same recipe with every downloaded checkpoint at its commit, so that it always gives the same model."""
        models = tuple(replace(model, checkpoint=pinned_reference(model.checkpoint)) for model in self.models)
        return replace(self, models=models, base=self.base and pinned_reference(self.base))

    def to_yaml(self) -> str:
        """YAML that `from_yaml` reads back to an equal recipe; settings without effect are left out."""
        content = {"version": self.version, "models": [asdict(model) for model in self.models]}
        content |= {"rule": self.rule, "fisher": asdict(self.fisher)}
        evaluation = asdict(self.evaluation)
        evaluation["tasks"] = list(self.evaluation.tasks)
        if not self.evaluation.tasks:
            del evaluation["tasks"]
        content |= {"evaluation": evaluation, "heads": self.heads, "device": self.device}
        if self.base:
            content["base"] = self.base
        if self.compare != COMPARISONS:
            content["compare"] = list(self.compare)
        return write_yaml(content)

    @staticmethod
    def from_yaml(text: str) -> "Recipe":
        """Reads a recipe. Raises: RecipeError, naming the field at fault."""
        try:
            content = read_yaml(text)
        except Unreadable as problem:
            raise RecipeError(f"The recipe cannot be read: expected YAML, got '{problem}'. Mend the file.") from problem
        return _from_mapping(content)

    @staticmethod
    def of(recipe: "Recipe | Mapping[str, object] | str | Path") -> "Recipe":
        """A recipe from itself, from its fields, or from its file. Raises: RecipeError."""
        if isinstance(recipe, Recipe):
            return recipe
        return _from_mapping(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)

    @staticmethod
    def load(path: str | Path) -> "Recipe":
        """Reads a recipe's file. Raises: RecipeError if it is missing or wrong."""
        try:
            return Recipe.from_yaml(read_text(Path(path)))
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem)
            raise RecipeError(
                f'The recipe "{path}" cannot be read: expected a YAML file, got "{reason}". Check the path.'
            ) from problem


def recipe_for_pool(pool: Pool, models: Sequence[str], **settings: object) -> Recipe:
    """A recipe with equal weights for some models of a pool, by their names; `settings` are fields of `Recipe`.

    Raises: PoolError for an unknown model.
    """
    entries = [pool.model(name) for name in models]
    weight = 1.0 / max(len(entries), 1)
    chosen = tuple(ModelEntry(entry.checkpoint, entry.task, weight) for entry in entries)
    return Recipe(models=chosen, base=pool.base, **settings)


def preset_recipe(pool: Pool, preset: str, **settings: object) -> Recipe:
    """The recipe of a pool's preset. Raises: PoolError for an unknown preset."""
    chosen = pool.preset(preset)
    evaluation = EvaluationSettings(tasks=tuple(pool.task_reference(name) for name in chosen.evaluate))
    return recipe_for_pool(pool, chosen.models, **{"heads": chosen.heads, "evaluation": evaluation, **settings})


def _from_mapping(content: object) -> Recipe:
    content = _section("recipe", content, Recipe)
    models = content.get("models")
    if not isinstance(models, list):
        raise RecipeError(
            f'The recipe has no models: expected a list under "models", got {shown(models)}. Add two or more.'
        )
    entries = []
    for position, entry in enumerate(models, start=1):
        entry = _section(f"model {position}", entry, ModelEntry)
        if "checkpoint" not in entry or "task" not in entry:
            raise RecipeError(
                f'Model {position} is incomplete: expected "checkpoint" and "task", got {quoted(entry)}. Add what is missing.'
            )
        named = entry["checkpoint"] if isinstance(entry["checkpoint"], list | dict) else str(entry["checkpoint"])
        entries.append(ModelEntry(named, entry["task"], _number("weight", entry.get("weight", 1.0))))
    content["models"] = tuple(entries)
    if "fisher" in content:
        content["fisher"] = FisherSettings(**_section("fisher", content["fisher"], FisherSettings))
    if "evaluation" in content:
        evaluation = _section("evaluation", content["evaluation"], EvaluationSettings)
        evaluation["tasks"] = _listed("evaluation's tasks", evaluation.get("tasks"))
        content["evaluation"] = EvaluationSettings(**evaluation)
    if "compare" in content:
        content["compare"] = _listed("comparisons", content["compare"])
    return Recipe(**content)


def _listed(what: str, content: object) -> tuple[object, ...]:
    if not isinstance(content, list | None):
        raise RecipeError(f"The {what} cannot be read: expected a list, got {shown(content)}. Mend the recipe.")
    return tuple(content or ())


def _section(what: str, content: object, shape: type) -> dict[str, object]:
    if not isinstance(content, Mapping):
        raise RecipeError(
            f"The {what} cannot be read: expected fields and values, got {shown(content)}. Mend the recipe."
        )
    known = {item.name for item in fields(shape)}
    for name in content:
        if name not in known:
            raise RecipeError(
                f'The {what} has an unknown field: expected {quoted(known, 12)}, got "{name!s:.80}". {nearest(name, known)}'
            )
    return dict(content)


def _check(recipe: Recipe) -> None:
    if recipe.version != 1:
        raise RecipeError(
            f"The recipe cannot be read: expected version 1, got {shown(recipe.version)}. Update the program."
        )
    if len(recipe.models) < 2:
        raise RecipeError(f"Nothing to merge: expected two or more models, got {len(recipe.models)}. Add a model.")
    for entry in recipe.models:
        _require_reference("checkpoint", entry.checkpoint, str)
    for task in [*[entry.task for entry in recipe.models], *recipe.evaluation.tasks]:
        _require_reference("task", task, str | Mapping)
    _require_reference("base", recipe.base, str | None)
    normalised_weights(recipe.weights, count=len(recipe.models))
    require_choice("rule", recipe.rule, RULES)
    require_choice("kind of labels", recipe.fisher.labels, LABELS)
    require_choice("normalisation", recipe.fisher.normalise, NORMALISATIONS)
    require_choice("zero rule", recipe.fisher.zero_rule, ZERO_RULES)
    require_choice("split", recipe.evaluation.split, SPLITS)
    require_choice("way of treating heads", recipe.heads, HEADS)
    require_choice("device", recipe.device, DEVICES)
    if recipe.fisher.zero_rule == "base" and RULES[recipe.rule].needs_fisher and not recipe.base:
        raise RecipeError(
            'zero_rule "base" needs the base checkpoint: expected it under "base", got none. '
            'Name the base in the recipe, or choose "mean" or "target".'
        )
    for method in recipe.compare:
        require_choice("comparison", method, COMPARISONS)
    floor = _number("floor", recipe.fisher.floor)
    if not (math.isfinite(floor) and floor >= 0):
        raise RecipeError(f"The floor cannot be used: expected a finite number of 0 or more, got {floor}. Try 0.")
    if isinstance(recipe.fisher.seed, bool) or not isinstance(recipe.fisher.seed, int) or recipe.fisher.seed < 0:
        raise RecipeError(
            f"The seed cannot be used: expected a whole number of 0 or more, got {shown(recipe.fisher.seed)}."
        )
    if recipe.fisher.seed > LARGEST_SEED:
        raise RecipeError(f"The seed cannot be used: expected at most {LARGEST_SEED}, got {recipe.fisher.seed:.3g}.")
    for what, examples in (("fisher", recipe.fisher.examples), ("evaluation", recipe.evaluation.examples)):
        if examples != "all" and (isinstance(examples, bool) or not isinstance(examples, int) or examples < 1):
            raise RecipeError(
                f'The {what} examples cannot be used: expected a whole number of 1 or more, or "all", got {shown(examples)}.'
            )


def _require_reference(what: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or not is_plain(value):
        expected = "a task, or its fields as text, numbers and lists" if what == "task" else "a checkpoint"
        raise RecipeError(f"The {what} cannot be opened: expected {expected}, got {shown(value)}. Mend the recipe.")


def _number(what: str, value: object) -> float:
    try:
        return float(value)  # of a text, too: YAML reads 1e-6 (no dot) as one
    except (TypeError, ValueError, OverflowError):
        raise RecipeError(f"The {what} cannot be used: expected a number, got {shown(value)}.") from None
