"""Which weights and settings a merge takes, and whether they have a meaning."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from merging.errors import RecipeError, StructureError, nearest, quoted, require_choice
from merging.parameters import layers_of, place_of
from merging.rules import RULES
from merging.scales import NORMALISATIONS

ZERO_RULES = ("mean", "target", "base")


def checked_settings(
    count: int, rule: str, weights: Sequence[float] | None, *, floor: float, normalise: str, zero_rule: str
) -> list[float]:
    """λ of sum 1 for `count` models. Raises: RecipeError for settings that have no meaning."""
    require_choice("rule", rule, RULES)
    require_choice("normalisation", normalise, NORMALISATIONS)
    require_choice("zero rule", zero_rule, ZERO_RULES)
    _check_floor(floor)
    if count < 2:
        raise RecipeError(f"Nothing to merge: expected two or more models, got {count}. Add another checkpoint.")
    require_count(rule, count)
    return normalised_weights(weights if weights is not None else [1.0] * count, count=count)


def require_count(rule: str, count: int) -> None:
    """Raises: RecipeError if the rule merges another number of models only."""
    exactly = RULES[rule].exactly
    if exactly is not None and count != exactly:
        raise RecipeError(
            f'The rule "{rule}" cannot be used: expected {exactly} models, got {count}. '
            f"Choose {exactly} models, or another rule."
        )


def require_plain(rule: str, *, scale: float = 1.0, layer_weights: Mapping[str, object] | None = None) -> None:
    """Raises: RecipeError for what is not merged from file to file: all but what goes number by number."""
    plain = [name for name, one in RULES.items() if one.is_plain]
    if rule not in plain or scale != 1 or layer_weights:
        got = rule if rule not in plain else f"a scale of {scale:g}" if scale != 1 else "weights for layers"
        raise RecipeError(
            f"This cannot be merged from file to file: expected the rule {' or '.join(plain)} at scale 1 with one weight for each "
            f"model, got {got}. Use `run`, which opens the models, or change the recipe."
        )


def normalised_weights(weights: Sequence[float], *, count: int) -> list[float]:
    """λ divided by its sum.

    Raises: RecipeError if there is not one finite number ≥ 0 for each model, or if all are zero.
    """
    given = [float(weight) for weight in weights]
    if len(given) != count:
        raise RecipeError(
            f"The weights do not fit: expected one for each of the {count} models, got {len(given)}. "
            "Give every model a weight."
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in given):
        raise RecipeError(
            f"The weights cannot be used: expected finite numbers of 0 or more, got {given}. Set every λ to 0 or more."
        )
    largest = max(given)
    if largest == 0:
        raise RecipeError(
            f"The weights cannot be used: expected at least one above 0, got {given}. Raise one of the λ sliders."
        )
    scaled = [weight / largest for weight in given]
    return [weight / math.fsum(scaled) for weight in scaled]


def _check_floor(floor: float) -> None:
    if not (isinstance(floor, int | float) and math.isfinite(floor) and floor >= 0):
        raise RecipeError(f"The floor cannot be used: expected a finite number of 0 or more, got {floor}. Try 0.")


def check_base(
    parameters: Mapping[str, Tensor], base: Mapping[str, Tensor] | None, *, rule: str = "fisher", scale: float = 1.0
) -> None:
    """Raises: RecipeError if there is no base; StructureError unless it has the parameters' names and shapes."""
    if base is None:
        raise no_base(rule, scale)
    wrong = [name for name in parameters if name not in base or base[name].shape != parameters[name].shape]
    if wrong:
        raise StructureError(
            f"The base does not fit the models: expected the same parameters, got others for {quoted(wrong)}. "
            "Name the checkpoint that the models were fine-tuned from."
        )


def needs_base(rule: str, *, zero_rule: str, scale: float) -> bool:
    """Whether a merge takes the base's parameters."""
    chosen = RULES[rule]
    return chosen.needs_base or scale != 1 or (chosen.needs_fisher and zero_rule == "base")


def no_base(rule: str, scale: float) -> RecipeError:
    """The error where a base is needed and none is named."""
    if RULES[rule].needs_base:
        what, other = f'The rule "{rule}"', "choose another rule"
    elif scale != 1:
        what, other = f"A scale of {scale:g}", "choose a scale of 1"
    else:
        what, other = 'zero_rule "base"', 'choose "mean" or "target"'
    return RecipeError(
        f"{what} needs the base checkpoint: expected its parameters, got none. Name the base in the recipe, or {other}."
    )


class OwnWeights:
    """Each parameter's λ: the models', or those of the layer that it stands in."""

    def __init__(self, names: Sequence[str], lambdas: list[float], others: Mapping[str, Sequence[float]], like: Tensor):
        known = {place_of(name).layer for name in names}
        for layer in others:
            if layer not in known:
                raise RecipeError(
                    f'The weights of layer "{layer!s:.40}" have no place: expected {quoted(layers_of(names), 12)}. '
                    f"{nearest(str(layer), known)}"
                )
        self._all = like.new_tensor(lambdas)
        self._others = {
            layer: like.new_tensor(normalised_weights(own, count=len(lambdas))) for layer, own in others.items()
        }

    def of(self, name: str | None) -> Tensor:
        """λ (M,) of sum 1."""
        return self._all if name is None else self._others.get(place_of(name).layer, self._all)
