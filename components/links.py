"""A recipe in a link: `?recipe=…` reopens the settings of a page; `?pool=…&preset=…` and `?tab=…` are written by hand."""

import base64
import binascii
import zlib
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from merging.errors import RecipeError, require_choice
from merging.pools import hub_names, open_pool
from merging.recipe import Recipe, preset_recipe
from merging.zoo import names as zoo_names

KNOWN = ("recipe", "pool", "preset", "tab")
LONGEST_QUERY = 8_000  # characters: browsers and proxies cut longer addresses
LARGEST_RECIPE = 64_000  # bytes, unpacked
# Gradio's own parameters, which are none of ours.
OTHERS = ("__theme", "view", "logs", "__sign")


@dataclass(frozen=True)
class Linked:
    """What a link asks for: a recipe, a tab, and the parameters that mean nothing here."""

    recipe: Recipe | None
    tab: str | None
    unknown: tuple[str, ...]


def link_query(recipe: Recipe) -> str:
    """`?recipe=…`: the recipe's YAML, compressed.

    Raises: RecipeError if the link would be too long.
    """
    packed = base64.urlsafe_b64encode(zlib.compress(recipe.to_yaml().encode(), 9)).decode().rstrip("=")
    query = "?" + urlencode({"recipe": packed})
    if len(query) > LONGEST_QUERY:
        raise RecipeError(
            f"These settings do not fit into a link: expected at most {LONGEST_QUERY} characters, got {len(query)}. "
            "Hand on the recipe's file instead."
        )
    return query


def read_link(query: str) -> Linked:
    """What the part of an address from `?` on asks for. Raises: MergingError for what cannot be read."""
    if len(query) > LONGEST_QUERY:
        raise RecipeError(
            f"This link cannot be opened: expected at most {LONGEST_QUERY} characters, got {len(query)}. "
            "Ask for the recipe's file instead."
        )
    given = {name: values[-1] for name, values in parse_qs(query.removeprefix("?")).items()}
    unknown = tuple(sorted(name[:40] for name in given if name not in (*KNOWN, *OTHERS)))
    recipe = None
    if "recipe" in given:
        recipe = Recipe.from_yaml(_unpacked(given["recipe"]))
    elif "pool" in given:
        recipe = _preset(given["pool"], given.get("preset"))
    return Linked(recipe, given.get("tab"), unknown)


def _unpacked(packed: str) -> str:
    try:
        raw = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(raw, LARGEST_RECIPE)
        if not unpacking.eof:
            raise ValueError("the recipe is cut short or too large")
        return text.decode()
    except (binascii.Error, zlib.error, ValueError) as problem:
        raise RecipeError(
            f"This link cannot be opened: expected a recipe as the Export tab packs it, got {problem}. "
            "Check that the whole address was copied."
        ) from problem


def _preset(name: str, preset: str | None) -> Recipe:
    # A link opens no folder.
    require_choice("pool", name, [*zoo_names(), *hub_names()])
    pool = open_pool(name)
    if preset is None and not pool.presets:
        raise RecipeError(f'This link cannot be opened: expected a preset of pool "{name}", got none. Pick its models.')
    return preset_recipe(pool, preset or pool.presets[0].name)
