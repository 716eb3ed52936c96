"""Whether a recipe's fields can be carried out, before anything is opened."""

import math
from collections.abc import Mapping

from merging.documents import is_plain
from merging.errors import RecipeError, require_choice, shown
from merging.gradients import LABELS
from merging.rules import RULES, RuleSettings
from merging.rules.settings import LARGEST_SEED
from merging.scales import NORMALISATIONS
from merging.tasks import SPLITS
from merging.weights import ZERO_RULES, needs_base, no_base, normalised_weights, require_count

HEADS = ("keep", "merge")
DEVICES = ("auto", "cuda", "mps", "cpu")
# What a merge can stand beside: other rules, the ensemble of the models' outputs, and each expert.
METHODS = ("ensemble", "experts", *RULES)


def check_fields(recipe: object) -> None:
    """Whether a `Recipe` can be carried out, as far as its fields tell. Raises: RecipeError."""
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
    for method in recipe.compare:
        require_choice("comparison", method, METHODS)
    if not isinstance(recipe.settings, RuleSettings) or not isinstance(recipe.layer_weights, Mapping):
        raise RecipeError(
            "The recipe cannot be read: expected settings as RuleSettings and layer_weights as a dictionary, got "
            f"{shown(recipe.settings)} and {shown(recipe.layer_weights)}. Mend them, or leave them out."
        )
    for rule in recipe.rules:
        require_count(rule, len(recipe.models))
        if needs_base(rule, zero_rule=recipe.fisher.zero_rule, scale=recipe.settings.scale) and not recipe.base:
            raise no_base(rule, recipe.settings.scale)
    for own in recipe.layer_weights.values():
        normalised_weights(own, count=len(recipe.models))
    floor = number_of("floor", recipe.fisher.floor)
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


def number_of(what: str, value: object) -> float:
    """A number, or a text that reads as one. Raises: RecipeError."""
    try:
        return float(value)  # of a text, too: YAML reads 1e-6 (no dot) as one
    except (TypeError, ValueError, OverflowError):
        raise RecipeError(f"The {what} cannot be used: expected a number, got {shown(value)}.") from None
