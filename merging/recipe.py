"""A recipe: everything that decides a merge, as one YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from merging.documents import Unreadable, read_text, read_yaml, write_yaml
from merging.errors import RecipeError, nearest, quoted, shown
from merging.headers import pinned_reference
from merging.pools import Pool
from merging.recipe_checks import check_fields, number_of
from merging.rules import RULES, RuleSettings
from merging.weights import needs_base

COMPARISONS = ("isotropic", "ensemble", "experts")


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
    """Everything that decides a merge.

    `settings` are those of the rules; `layer_weights` other weights (one for each model) for the parameters of some layers.
    """

    models: tuple[ModelEntry, ...]
    rule: str = "fisher"
    settings: RuleSettings = field(default_factory=RuleSettings)
    fisher: FisherSettings = field(default_factory=FisherSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    heads: str = "keep"
    device: str = "auto"
    base: str | None = None
    layer_weights: Mapping[str, Sequence[float]] = field(default_factory=dict)
    compare: tuple[str, ...] = COMPARISONS
    version: int = 1

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def weights(self) -> list[float]:
        """The models' λ as set, before normalisation."""
        return [model.weight for model in self.models]

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that are carried out: its own, then those that it is compared with."""
        return (self.rule, *(name for name in dict.fromkeys(self.compare) if name in RULES and name != self.rule))

    @property
    def needs_factors(self) -> bool:
        """Whether a rule takes the layers' Kronecker factors."""
        return any(RULES[rule].needs_factors for rule in self.rules)

    @property
    def needs_fishers(self) -> bool:
        """Whether a rule takes what only an estimate can give."""
        return self.needs_factors or any(RULES[rule].needs_fisher for rule in self.rules)

    @property
    def needs_base(self) -> bool:
        """Whether a rule takes the base's parameters."""
        asked = {"zero_rule": self.fisher.zero_rule, "scale": self.settings.scale}
        return any(needs_base(rule, **asked) for rule in self.rules)

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
        if self.settings.changed():
            content["settings"] = self.settings.changed()
        if self.layer_weights:
            content["layer_weights"] = {str(layer): list(own) for layer, own in self.layer_weights.items()}
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
        entries.append(ModelEntry(named, entry["task"], number_of("weight", entry.get("weight", 1.0))))
    content["models"] = tuple(entries)
    if "fisher" in content:
        content["fisher"] = FisherSettings(**_section("fisher", content["fisher"], FisherSettings))
    if "settings" in content:
        own = _section("settings", content["settings"], RuleSettings)
        content["settings"] = RuleSettings(
            **{name: number_of(name, value) if isinstance(value, str) else value for name, value in own.items()}
        )
    if "layer_weights" in content:
        content["layer_weights"] = _layer_weights(content["layer_weights"])
    if "evaluation" in content:
        evaluation = _section("evaluation", content["evaluation"], EvaluationSettings)
        evaluation["tasks"] = _listed("evaluation's tasks", evaluation.get("tasks"))
        content["evaluation"] = EvaluationSettings(**evaluation)
    if "compare" in content:
        content["compare"] = _listed("comparisons", content["compare"])
    return Recipe(**content)


def _layer_weights(content: object) -> dict[str, tuple[float, ...]]:
    if not isinstance(content, Mapping | None):
        raise RecipeError(
            f"The layers' weights cannot be read: expected layers and lists of weights, got {shown(content)}. Mend the recipe."
        )
    return {
        str(layer): tuple(number_of("weight", weight) for weight in _listed(f'weights of layer "{layer!s:.40}"', own))
        for layer, own in (content or {}).items()
    }


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
