"""What the Inspect tab has computed, and kept with the preparation that it was computed from."""

import weakref
from collections.abc import Callable, Sequence

from components.form import Form, recipe_of
from components.frames import framed
from components.inspect import FRAMES
from components.modes import is_hosted
from components.picture import Picture
from components.score_charts import NO_FISHERS
from components.store import STORE
from merging.errors import RecipeError
from merging.prepared import Prepared
from merging.recipe import Recipe

KEPT = 32
# Numbers go with the preparation that they were computed from.
FOUND: weakref.WeakKeyDictionary[Prepared, dict[object, object]] = weakref.WeakKeyDictionary()


def prepared_of(values: Sequence[object]) -> tuple[Recipe, Prepared | None]:
    """The page's recipe, and what is prepared for it, if anything. Raises: RecipeError, also where that has no Fishers."""
    recipe = recipe_of(Form.of(*values), hosted=is_hosted())
    prepared = STORE.get(recipe)
    if prepared is not None and not prepared.fishers:
        raise RecipeError(NO_FISHERS)
    return recipe, prepared


def computed(prepared: Prepared, key: object, make: Callable[[], object]) -> object:
    """What was computed for this, or is now."""
    own = FOUND.setdefault(prepared, {})
    if key not in own:
        made = make()
        while len(own) >= KEPT:
            own.pop(next(iter(own)), None)
        own[key] = made
    return own[key]


def shown(name: str, picture: Picture) -> list[object]:
    """What one of the tab's frames shows of a picture."""
    return framed(picture, FRAMES[name][0])


def chosen_of(asked: object, names: Sequence[str], count: int) -> list[str]:
    """What was chosen, where it is still there; else the first ones."""
    wanted = [str(name) for name in asked] if isinstance(asked, list) else []
    if len(wanted) == count and all(name in names for name in wanted):
        return wanted
    return [names[min(place, len(names) - 1)] for place in range(count)]
