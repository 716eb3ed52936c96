"""Malformed links and form values: a page's address and its API are open to anybody."""

import base64
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import (
    actions,
    checks,
    explore_actions,
    explore_odds,
    export_panel,
    job_panel,
    merge_history,
    score_charts,
)
from components.form import ROWS, Form, recipe_of
from components.links import LONGEST_QUERY, read_link
from components.opening import link_updates
from merging.recipe import Recipe
from merging.references import is_folder
from merging.zoo import ZOO_FOLDER
from tests.benchmarks.slider import form_values
from tests.fuzz.strategies import budget, changed, mild, scalars, texts, values
from tests.fuzz.test_recipes import PIECES, SOUND

WIDTH_PX = 1200.0


def packed(content: bytes) -> str:
    return "?recipe=" + base64.urlsafe_b64encode(content).decode().rstrip("=")


queries = st.one_of(
    st.binary(max_size=200).map(packed),
    st.binary(max_size=200).map(zlib.compress).map(packed),
    st.lists(st.sampled_from(PIECES), max_size=20).map("".join).map(lambda text: packed(zlib.compress(text.encode()))),
    changed(SOUND).map(lambda content: packed(zlib.compress(json.dumps(content).encode()))),
    st.lists(st.tuples(st.sampled_from(["recipe", "pool", "preset", "tab", "x"]), texts), max_size=4).map(
        lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs)
    ),
    texts,
)


@given(queries)
@budget(1000)
def test_a_link_is_opened_or_gives_a_message(query):
    linked = mild(read_link, query)
    if linked is not None:
        assert all(len(name) <= 40 for name in linked.unknown)
        mild(link_updates, query)
    told = " ".join(one for one in actions.link_opened(query)[:1] if isinstance(one, str))
    assert "<script" not in told


@pytest.mark.parametrize("size", [10**3, 10**6, 10**8])
def test_a_link_that_unpacks_to_much_is_refused_in_little_memory(size):
    packing = zlib.compressobj(9)
    pieces = [packing.compress(b"a" * min(size, 10**6)) for _ in range(max(1, size // 10**6))]
    bomb = packed(b"".join([*pieces, packing.flush()]))
    assert mild(read_link, bomb) is None
    assert len(bomb) < LONGEST_QUERY or size > 10**6


@pytest.mark.parametrize(
    "query", ["?" + "a=b&" * 1900, "?" + "&" * 7000, "?recipe=" + "A" * 7000, "?recipe=&recipe=" * 400]
)
def test_a_long_address_is_read_within_bounds(query):
    linked = mild(read_link, query)
    assert linked is None or linked.recipe is None


FORMS = changed(form_values(Recipe.of(SOUND), [0.5, 0.5]))


def told_by(answer: object) -> str:
    """All texts of an answer."""
    if isinstance(answer, dict):
        return " ".join(told_by(one) for one in answer.values())
    if isinstance(answer, list | tuple):
        return " ".join(told_by(one) for one in answer)
    return answer if isinstance(answer, str) else ""


# What reads the form and opens no model: each must answer, whatever arrives.
READERS = {
    "described": lambda form: export_panel.described(*form),
    "saved": lambda form: export_panel.saved_recipe(*form),
    "exported": lambda form: export_panel.exported(*form),
    "shown": lambda form: score_charts.shown(WIDTH_PX, *form),
    "previewed": lambda form: actions.moved([], WIDTH_PX, *form)[1:],
    "checked": lambda form: [checks.checked(*form)],
    "by size": lambda form: actions.weights_by_size(*form),
    "best": lambda form: actions.best_weights(*form),
    "explored": lambda form: explore_actions.watched("", "", "mean", 10, WIDTH_PX, *form),
    "odds": lambda form: [explore_odds.odds_of(*form)],
    "kept": lambda form: merge_history.remembered("", "", *form),
    "ensured": lambda form: job_panel.ensured(*form) if len(form[0] or "") < 2 else [],
}


@given(form=FORMS, reader=st.sampled_from(sorted(READERS)))
@budget(400)
def test_form_values_of_any_type_are_answered(form, reader):
    if isinstance(form, list) and len(form) == len(Form.__dataclass_fields__) - 1 + ROWS:
        json.dumps([one for one in READERS[reader](form) if isinstance(one, str)]).encode()


@given(form=FORMS)
@budget(150)
def test_a_hosted_page_opens_no_folder_and_names_none_of_its_own(form):
    if not isinstance(form, list) or len(form) != len(Form.__dataclass_fields__) - 1 + ROWS:
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPACE_ID", "someone/studio")
        recipe = mild(lambda: recipe_of(Form.of(*form), hosted=True))
        for reference in [one for entry in recipe.models for one in (entry.checkpoint, entry.task)] if recipe else ():
            assert not (isinstance(reference, str) and is_folder(reference)), reference
        for reader in ("described", "checked", "shown"):
            assert str(ZOO_FOLDER.parent) not in told_by(READERS[reader](form))


@given(st.lists(st.one_of(scalars, values), min_size=2, max_size=2))
@budget(300)
def test_what_is_clicked_named_and_pressed_may_be_anything(given_values):
    first, second = given_values
    mild(explore_actions.parsed, first, 2)
    explore_actions.picked(first, second if isinstance(second, list) else None)
    explore_odds.odds_moved(first, ["a", "b"])
    actions.merge_reloaded(first if isinstance(first, str) else "", second if isinstance(second, str) else None)
    merge_history.compared("", str(first), str(second))
    job_panel.polled(first if isinstance(first, str) else "")
