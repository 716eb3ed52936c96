"""Malformed recipes: whatever a file, a link or a script holds, a recipe comes out, or a message."""

from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.links import link_query
from components.opening import form_updates
from merging.documents import LARGEST, Unreadable, read_yaml
from merging.pools import open_pool
from merging.preflight import preflight
from merging.recipe import Recipe, preset_recipe
from merging.tasks import open_task
from tests.fuzz.strategies import budget, changed, mild, texts, values

SOUND = yaml.safe_load(preset_recipe(open_pool("digits"), "robust").to_yaml())
HUB_TASK = {"dataset": "org/name", "config": "a", "splits": {"fisher": "train", "test": "test"}, "text": ["a", "b"]}
HUB_TASK |= {"labels": ["x", "y"], "alignment": [1, 0], "templates": ["a {}"], "max_tokens": 9, "shares": {"test": 1}}
WITH_MAPPING = {**SOUND, "models": [{**SOUND["models"][0], "task": HUB_TASK}, SOUND["models"][1]]}
# Pieces of YAML that mean something to its reader.
PIECES = (
    *("a: ", "- ", "? ", ": ", "[", "]", "{", "}", ", ", "\n", "\n  ", "|\n", ">\n", "&a ", "*a", "<<: ", "*b", "&b "),
    *(
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!binary ",
        "!!set ",
        "!!omap ",
        "!!int ",
        "!!float ",
    ),
    *(
        "!!timestamp ",
        "!!bool ",
        "!x ",
        "%YAML 9.9\n",
        "---\n",
        "...\n",
        "2001-99-99",
        "2001-01-01",
        "0x" + "f" * 200,
        "1:2:3",
    ),
    *('"\\ud800"', '"\\UFFFFFFFF"', "'", '"', "\t", "\0", "#", "@", "`", "=", "~", ".nan", ".inf", "-.inf", "9" * 5000),
    *("models: ", "fisher: ", "weight: ", "checkpoint: ", "task: ", "version: 1", "1e400", "_", "0b", "0o8", "-"),
)


def used(recipe: Recipe) -> None:
    """What the page does with any recipe that it could read, before a model is opened."""
    assert Recipe.from_yaml(recipe.to_yaml()).to_yaml() == recipe.to_yaml()
    mild(link_query, recipe)
    mild(form_updates, recipe, [])
    # An id that reads like one of the Hub would be asked for there.
    if all(entry.checkpoint.startswith("zoo:") for entry in recipe.models) and (recipe.base or "zoo:").startswith(
        "zoo:"
    ):
        report = mild(preflight, recipe)
        assert report is None or report.checks


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=30).map("".join))
@budget(700)
def test_a_text_is_a_recipe_or_gives_a_message(text):
    recipe = mild(Recipe.from_yaml, text)
    if recipe is not None:
        used(recipe)


@given(changed(SOUND))
@budget(300)
def test_a_sound_recipe_with_a_part_replaced(content):
    recipe = mild(Recipe.of, content) if isinstance(content, dict) else None
    if recipe is not None:
        used(recipe)
    try:
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    except ValueError:  # whole numbers of thousands of digits, which cannot be written
        return
    read = mild(Recipe.from_yaml, text)
    assert read is None or read.to_yaml() == recipe.to_yaml()


@given(changed(WITH_MAPPING))
@budget(200)
def test_a_recipe_with_a_dataset_of_ones_own_with_a_part_replaced(content):
    recipe = mild(Recipe.of, content) if isinstance(content, dict) else None
    if recipe is not None:
        used(recipe)


@given(st.one_of(changed(HUB_TASK), changed({"file": "x.csv", "seed": 1, "label": "a"}), values))
@budget(400)
def test_a_task_is_opened_or_gives_a_message(reference):
    mild(open_task, reference)


@given(texts)
@budget(100)
def test_a_name_of_a_pool_is_opened_or_gives_a_message(name):
    mild(open_pool, name)


BOMBS = {
    "aliases": "a: &a [x, x]\n"
    + "".join(f"{own}: &{own} [*{last}, *{last}]\n" for last, own in pairwise("abcdefghijklmnopqrstuvwxyz")),
    "merged mappings": "a: &a {x: 1, y: 2}\n"
    + "".join(f"{own}: &{own} {{<<: [{', '.join(['*' + last] * 9)}]}}\n" for last, own in pairwise("abcdefghijklmn")),
    "an alias to itself": "models: &a [*a]",
    "a mapping that holds itself": "&a {models: *a}",
    "nesting": "[" * 5000,
    "nesting that ends": "[" * 60 + "]" * 60,
    "nested mappings": "".join(f"{' ' * depth}a:\n" for depth in range(500)),
    "nested keys": "? " * 5000,
    "digits": f"version: {'9' * 100_000}",
    "hexadecimal digits": f"version: 0x{'f' * 100_000}",
    "sexagesimal digits": f"version: 1{':59' * 30_000}",
    "too long": "a: " + "x" * LARGEST,
    "wide": "- a\n" * 30_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_of_yaml_is_refused_before_it_takes_memory_or_time(text):
    assert mild(Recipe.from_yaml, text) is None


@pytest.mark.parametrize(
    "text",
    [
        "!!int ''",
        "!!bool x",
        "!!timestamp x",
        "!!float ''",
        '"\\UFFFFFFFF"',
        "2001-99-99",
        "{[a]: b}",
        "!!omap [1]",
        "=",
    ],
)
def test_a_scalar_that_is_not_what_its_tag_says_is_unreadable(text):
    with pytest.raises(Unreadable):
        read_yaml(text)


def test_the_aliases_of_a_sound_recipe_are_read():
    """PyYAML writes one where two models have the very same task."""
    content = {**SOUND, "models": [{"checkpoint": name, "task": HUB_TASK} for name in ("a/b", "c/d")]}
    text = yaml.safe_dump(content)
    assert "*id001" in text
    assert Recipe.from_yaml(text) == Recipe.of(content)
