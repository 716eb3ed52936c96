"""Widgets to recipe and back: one list of fields, in one order, for every event of the page."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.modes import require_open_to_all
from components.rule_fields import BESIDE, NUMBERS, RULE, layer_weights_of
from merging.documents import read_json
from merging.errors import RecipeError, shown
from merging.pools import Pool
from merging.recipe import COMPARISONS, EvaluationSettings, FisherSettings, ModelEntry, Recipe
from merging.references import is_folder, short_name
from merging.rules import RULES, RuleSettings
from merging.rules.settings import DEFAULTS

ROWS = 8
# Fields before the sliders; and how many widgets there are in all.
FIRST, WIDGETS = 12, 28
# Between a checkpoint and a task that is not the checkpoint's own in its pool.
WITH_TASK = " => "


@dataclass(frozen=True)
class Form:
    """The values of the widgets, in the order in which events receive them; `weights` holds all eight sliders.

    What comes after them may be left out by programs that know an older page.
    """

    models: Sequence[str]
    heads: str
    tasks: Sequence[str]
    labels: str
    examples: float
    seed: float
    floor: float
    normalise: str
    zero_rule: str
    device: str
    split: str
    base: str
    weights: tuple[float, ...]
    rule: str = RULE
    beside: Sequence[str] = BESIDE
    scale: float = DEFAULTS.scale
    damping: float = DEFAULTS.damping
    shrinkage: float = DEFAULTS.shrinkage
    density: float = DEFAULTS.density
    prior: float = DEFAULTS.prior
    layer_weights: str = ""

    @staticmethod
    def of(*values: object) -> "Form":
        """From the widgets' values: the first fields, the sliders, then how it is merged, or a part of that.

        Who calls a page by its API may send anything.
        """
        (models, heads, tasks, *others), rules = values[:FIRST], list(values[FIRST + ROWS :])
        rules[1:2] = [texts(one) for one in rules[1:2]]
        return Form(texts(models), heads, texts(tasks), *others, tuple(values[FIRST : FIRST + ROWS]), *rules)

    def values(self) -> list[object]:
        """The widgets' values, in their order."""
        own = [getattr(self, name) for name in Form.__dataclass_fields__]
        return [*own[:FIRST], *self.weights, *own[FIRST + 1 :]]


def recipe_of(form: Form, *, hosted: bool) -> Recipe:
    """The recipe that the page shows.

    Raises: RecipeError for settings that cannot be carried out.
    """
    chosen = list(form.models or ())
    if len(chosen) > ROWS:
        raise RecipeError(f"Too many models: expected at most {ROWS}, got {len(chosen)}. Take some out.")
    entries = []
    for value, weight in zip(chosen, form.weights, strict=False):
        checkpoint, _, task = str(value).partition(WITH_TASK)
        entries.append(ModelEntry(checkpoint, task_of(task or checkpoint), _number("λ", weight)))
    recipe = Recipe(
        models=tuple(entries),
        fisher=FisherSettings(
            labels=form.labels,
            examples=_whole("number of Fisher examples", form.examples),
            seed=_whole("seed", form.seed),
            floor=_number("floor", form.floor),
            normalise=form.normalise,
            zero_rule=form.zero_rule,
        ),
        evaluation=EvaluationSettings(split=form.split, tasks=tuple(task_of(task) for task in form.tasks or ())),
        heads=form.heads,
        device=form.device,
        base=form.base or None,
        rule=form.rule,
        compare=(*(rule for rule in dict.fromkeys(form.beside) if rule in RULES), *COMPARISONS[1:]),
        settings=RuleSettings(**{name: _number(name, getattr(form, name)) for name in ("scale", *NUMBERS)}),
        layer_weights=layer_weights_of(form.layer_weights),
    )
    if hosted:
        require_open_to_all(recipe)
    return recipe


def needs_download(recipe: Recipe) -> bool:
    """Whether a checkpoint or a dataset of the recipe lies on the Hub: nothing that one does not ask for is downloaded."""
    named = [*[entry.checkpoint for entry in recipe.models], *([recipe.base] if recipe.base else [])]
    if any(not name.startswith("zoo:") and not is_folder(name) for name in named):
        return True
    tasks = [*[entry.task for entry in recipe.models], *recipe.evaluation.tasks]
    return any(isinstance(task, Mapping) and "dataset" in task for task in tasks)


def model_value(checkpoint: str, task: str | Mapping[str, object]) -> str:
    """What the list of models holds for a checkpoint and a task."""
    return f"{checkpoint}{WITH_TASK}{task_value(task)}"


def task_value(task: str | Mapping[str, object]) -> str:
    """What lists hold for a task: its reference, or its fields as JSON."""
    return task if isinstance(task, str) else json.dumps(dict(task))


def task_of(value: str) -> str | Mapping[str, object]:
    """A task as a recipe names it, from what a list holds. Raises: RecipeError."""
    if not value.startswith("{"):
        return value
    try:
        return read_json(value)
    except ValueError as problem:
        raise RecipeError(
            f"The task cannot be read: expected its fields as JSON, got {value!r:.80} ({problem}). Pick it again."
        ) from problem


def model_choices(pool: Pool) -> list[tuple[str, str]]:
    """What the list of models shows and holds for a pool."""
    return [(f"{model.name}: {model.title}", model_value(model.checkpoint, model.task)) for model in pool.models]


def model_name(value: str) -> str:
    """The short name of an entry in the list of models."""
    return short_name(value.partition(WITH_TASK)[0])


def texts(values: object) -> list[str]:
    """What a list of models or tasks holds, as text; nothing of what is no list."""
    return [one if isinstance(one, str) else shown(one) for one in values] if isinstance(values, list | tuple) else []


def _number(what: str, value: object) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise RecipeError(
            f"The {what} cannot be used: expected a number, got {shown(value)}. Enter a number."
        ) from None


def _whole(what: str, value: object) -> int:
    number = _number(what, value)
    if not math.isfinite(number) or number != int(number):
        raise RecipeError(f"The {what} cannot be used: expected a whole number, got {shown(value)}. Enter one.")
    return int(number)
