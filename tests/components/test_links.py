"""A recipe in a link."""

import base64
import zlib
from dataclasses import replace

import pytest

from components.form import FIRST, ROWS
from components.links import LONGEST_QUERY, link_query, read_link
from components.opening import form_updates, is_embedded, link_updates, pool_updates
from merging.errors import MergingError
from merging.pools import open_pool
from merging.recipe import FisherSettings, ModelEntry, Recipe, preset_recipe
from merging.rules import RuleSettings

POOL = open_pool("digits")
FOUR = preset_recipe(POOL, "four-tasks")


def _packed(text: bytes) -> str:
    return "?recipe=" + base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize("preset", [preset.name for preset in POOL.presets])
def test_a_link_holds_the_whole_recipe(preset):
    recipe = preset_recipe(POOL, preset)
    recipe = recipe.with_weights([0.1 + 0.07 * index for index in range(len(recipe.models))])
    assert read_link(link_query(recipe)).recipe == recipe


def test_a_link_holds_every_setting_and_tasks_of_ones_own():
    fisher = FisherSettings(labels="empirical", examples=48, seed=7, floor=1e-6, normalise="none", zero_rule="target")
    entry = ModelEntry("org/name@main", {"dataset": "org/dätä", "inputs": ["a & b"], "label": "=c"}, 0.3)
    recipe = replace(FOUR, fisher=fisher, models=(entry, *FOUR.models[1:]))
    assert read_link(link_query(recipe)).recipe == recipe


def test_a_link_holds_rules_their_settings_and_weights_of_layers():
    settings = RuleSettings(scale=1.5, damping=0.3, shrinkage=0.9, density=0.2, prior=3.0)
    asked = {"rule": "kfac", "settings": settings, "layer_weights": {"layer 0": (1.0, 0.5, 0.25, 0.0)}}
    recipe = replace(FOUR, compare=("ties", "isotropic", "ensemble", "experts"), **asked)
    assert read_link(link_query(recipe)).recipe == recipe
    updates, _, _ = link_updates(link_query(recipe))
    assert updates[3 + FIRST + ROWS :] == [
        *["kfac", ["ties", "isotropic"], 1.5, 0.3, 0.9, 0.2, 3.0, "layer 0: 1, 0.5, 0.25, 0"]
    ]


@pytest.mark.parametrize(
    "given",
    [
        "rule: kfca",
        "rule: [kfac]",
        "rule: slerp",
        "compare: [fisher, best]",
        "compare: everything",
        "settings: {damping: -1}",
        "settings: {scale: .inf}",
        "settings: {scale: 9}",  # more than the page's slider
        "settings: {depth: 1}",
        "layer_weights: {layer 0: [1]}",
        "layer_weights: {layer 0: [a, b, c, d]}",
        "layer_weights: 3",
    ],
)
def test_rules_and_settings_that_cannot_be_are_refused_in_words(given):
    field = given.partition(":")[0]
    lines = [line for line in FOUR.to_yaml().splitlines() if not line.startswith(f"{field}:")]
    with pytest.raises(MergingError, match=r"expected .*got "):
        link_updates(_packed(zlib.compress("\n".join([*lines, given]).encode())))


def test_a_pool_and_a_preset_can_be_written_by_hand():
    assert read_link("?pool=digits&preset=robust").recipe == preset_recipe(POOL, "robust")
    assert read_link("?pool=digits").recipe == FOUR


def test_an_address_without_parameters_asks_for_nothing():
    assert read_link("") == read_link("?") == read_link("?__theme=dark")
    assert read_link("").recipe is read_link("").tab is None


def test_unknown_parameters_are_named_and_do_no_harm():
    linked = read_link("?utm_source=x&<script>=1&tab=learn")
    assert (linked.unknown, linked.tab, linked.recipe) == (("<script>", "utm_source"), "learn", None)


HOSTILE = {
    "no base64": "?recipe=%%%",
    "no zlib": _packed(b"plain"),
    "cut short": link_query(FOUR)[:-40],
    "a bomb": _packed(zlib.compress(b"a" * 50_000_000, 9)),
    "no text": _packed(zlib.compress(b"\xff\xfe\xfd")),
    "no recipe": _packed(zlib.compress(b"[1, 2]")),
    "a tag that runs code": _packed(zlib.compress(b"!!python/object/apply:os.system ['true']")),
    "nested without end": _packed(zlib.compress(b"[" * 30_000)),
    "unknown fields": _packed(zlib.compress(b"version: 1\nshell: true\n")),
    "too long": "?recipe=" + "a" * LONGEST_QUERY,
    "a folder": "?pool=/tmp",
    "an unknown preset": "?pool=digits&preset=../..",
}


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE)
def test_hostile_links_are_refused_with_a_message(query):
    with pytest.raises(MergingError, match="expected"):
        read_link(query)


def test_a_recipe_too_long_for_a_link_says_so():
    import random

    letters = random.Random(0)
    task = {"dataset": "".join(chr(letters.randrange(0x4E00, 0x9000)) for _ in range(6000))}
    with pytest.raises(MergingError, match="do not fit into a link"):
        link_query(replace(FOUR, models=(replace(FOUR.models[0], task=task), *FOUR.models[1:])))


def test_a_link_sets_the_pool_and_the_form_of_its_recipe():
    recipe = preset_recipe(POOL, "robust").with_weights([0.2, 0.8])
    updates, _, told = link_updates(link_query(recipe))
    assert updates[0] == "digits"
    assert updates[1]["value"] == "robust"
    _, known = pool_updates(recipe)
    assert updates[3:] == form_updates(recipe, known)
    assert "from a link" in told


def test_a_recipe_of_several_pools_is_shown_without_one():
    mixed = Recipe((ModelEntry("zoo:digits/parity", "zoo:digits/parity"), ModelEntry("org/a", "zoo:digits/loop")))
    above, known = pool_updates(mixed)
    assert (above[0], known) == ("own models", [])
    assert not is_embedded(mixed)
    assert is_embedded(FOUR)


def test_a_pool_outside_the_embedded_ones_is_not_opened_by_a_link():
    outside = Recipe((ModelEntry("zoo:../x", "zoo:../x"), ModelEntry("zoo:../y", "zoo:../y")))
    assert pool_updates(outside)[0][0] == "own models"


def test_a_hosted_page_opens_no_folders_by_a_link(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    own = replace(FOUR, models=(ModelEntry("/etc", "/etc"), *FOUR.models[1:]))
    with pytest.raises(MergingError, match="expected an embedded checkpoint"):
        link_updates(link_query(own))


def test_a_hub_id_that_begins_like_a_pool_is_none_of_its_models():
    alike = Recipe((ModelEntry("digits/parity", "zoo:digits/parity"), ModelEntry("digits/loop", "zoo:digits/loop")))
    assert pool_updates(alike)[0][0] == "own models"


@pytest.mark.parametrize("name", [None, "", "<b>", "gone" * 50])
def test_a_merge_that_is_not_there_is_told(name):
    from components.actions import merge_reloaded

    assert "expected one of this visit" in merge_reloaded("", name)[0]
