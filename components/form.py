"""Widgets to recipe and back: one list of fields, in one order, for every event of the page."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from merging.errors import RecipeError
from merging.pools import Pool
from merging.recipe import EvaluationSettings, FisherSettings, ModelEntry, Recipe
from merging.references import short_name

ROWS = 8
# Between a checkpoint and a task that is not the checkpoint's own in its pool.
WITH_TASK = " => "


@dataclass(frozen=True)
class Form:
    """The values of the widgets, in the order in which events receive them; `weights` holds all eight sliders."""

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

    @staticmethod
    def of(*values: object) -> "Form":
        """From the widgets' values: the named fields, then the sliders."""
        count = len(Form.__dataclass_fields__) - 1
        return Form(*values[:count], weights=tuple(values[count : count + ROWS]))


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
        task = json.loads(task) if task.startswith("{") else task or checkpoint
        entries.append(ModelEntry(checkpoint, task, _number("λ", weight)))
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
        evaluation=EvaluationSettings(split=form.split, tasks=tuple(form.tasks or ())),
        heads=form.heads,
        device=form.device,
        base=form.base or None,
    )
    if hosted:
        require_embedded(recipe)
    return recipe


def require_embedded(recipe: Recipe) -> None:
    """A hosted page opens no folders of its server. Raises: RecipeError."""
    named = [entry.checkpoint for entry in recipe.models] + [entry.task for entry in recipe.models]
    for reference in [*named, *recipe.evaluation.tasks, recipe.base or "zoo:"]:
        if not str(reference).startswith("zoo:"):
            raise RecipeError(
                f'"{reference}" cannot be opened here: expected an embedded checkpoint or task (zoo:POOL/NAME). '
                "Run the studio on your own machine to merge from folders."
            )


def model_value(checkpoint: str, task: str | Mapping[str, object]) -> str:
    """What the list of models holds for a checkpoint and a task."""
    return f"{checkpoint}{WITH_TASK}{task if isinstance(task, str) else json.dumps(dict(task))}"


def model_choices(pool: Pool) -> list[tuple[str, str]]:
    """What the list of models shows and holds for a pool."""
    return [(f"{model.name}: {model.title}", model_value(model.checkpoint, model.task)) for model in pool.models]


def model_name(value: str) -> str:
    """The short name of an entry in the list of models."""
    return short_name(value.partition(WITH_TASK)[0])


def _number(what: str, value: object) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RecipeError(f"The {what} cannot be used: expected a number, got {value!r}. Enter a number.") from None


def _whole(what: str, value: object) -> int:
    number = _number(what, value)
    if not math.isfinite(number) or number != int(number):
        raise RecipeError(f"The {what} cannot be used: expected a whole number, got {value!r}. Enter one.")
    return int(number)
