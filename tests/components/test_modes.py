"""What a page for strangers opens: embedded pools and ids of the Hub within limits; no folder, file or address."""

import json
from dataclasses import replace

import pytest

from components.add_model import OWN, added, looked
from components.checks import checked
from components.modes import is_hosted, limits, require_open_to_all, require_public, require_public_task
from components.pool_picker import pool_choices
from merging import hub_datasets
from merging.errors import CheckpointError, MergingError, RecipeError, TaskError
from merging.limits import HOSTED, Limits
from merging.pipeline import prepare
from merging.pools import hub_names, open_pool
from merging.preflight import preflight
from merging.recipe import preset_recipe
from merging.zoo import ZOO_FOLDER
from tests.ui.test_client import form

FOUR = preset_recipe(open_pool("digits"), "four-tasks")
WITHIN = Limits(parameters=10**9, dataset_bytes=10**9, memory_bytes=10**12)


@pytest.fixture
def hosted(monkeypatch):
    monkeypatch.setenv("FISHER_STUDIO_HOSTED", "1")


@pytest.mark.parametrize("name", ["SPACE_ID", "FISHER_STUDIO_HOSTED"])
def test_a_space_and_a_server_that_says_so_are_hosted(monkeypatch, name):
    assert not is_hosted()
    assert limits() is None
    monkeypatch.setenv(name, "somebody/studio")
    assert is_hosted()
    assert limits() == HOSTED


@pytest.mark.parametrize("reference", ["zoo:digits/parity", "org/name", "org/name@main", "a-b.c/d_e.f@0123abcd"])
def test_embedded_references_and_ids_of_the_hub_are_open(reference):
    require_public(reference)


CLOSED = [
    *("/etc", "/etc/passwd", "~", "~/models", "./model", "../model", "..", "model", "", "a/b/c", "org/..", "../..", "org/na me"),
    *("merging/zoo", "tests/ui", "merging/__init__.py"),  # which read like ids, and are there
    *("zoo:../../etc", "zoo:digits/../../..", "zoo:digits", "http://127.0.0.1/a", "file:///etc", "hf://org/name"),
    *("org/name@../../x", "org/name\n", "org\\name", "ｏｒｇ/name", "org/name@", "a" * 200 + "/b"),
    *(None, 3, ["org/name"]),
]  # fmt: skip


@pytest.mark.parametrize("reference", CLOSED, ids=repr)
def test_everything_else_is_closed(reference):
    with pytest.raises(RecipeError, match="expected an embedded checkpoint or task"):
        require_public(reference)
    with pytest.raises(RecipeError, match="expected an embedded checkpoint or task"):
        require_public_task({"dataset": reference, "splits": {"test": "test"}})
    with pytest.raises(RecipeError, match="expected an embedded checkpoint or task"):
        require_public_task(reference)


@pytest.mark.parametrize("task", [{"file": "a.csv"}, {"folder": "org/name"}, {"dataset": "org/name", "file": "a"}, {}])
def test_a_task_of_files_is_closed(task):
    with pytest.raises(RecipeError, match="expected an embedded checkpoint or task"):
        require_public_task(task)


def test_every_reference_of_a_recipe_is_looked_at():
    require_open_to_all(FOUR)
    first, *others = FOUR.models
    for closed in (
        replace(FOUR, models=(replace(first, checkpoint="/etc"), *others)),
        replace(FOUR, models=(*others, replace(first, task="/etc"))),
        replace(FOUR, base="/etc"),
        replace(FOUR, evaluation=replace(FOUR.evaluation, tasks=({"folder": "/etc"},))),
    ):
        with pytest.raises(RecipeError, match="expected an embedded checkpoint or task"):
            require_open_to_all(closed)


def test_a_hosted_page_offers_the_pools_of_the_hub_and_models_of_ones_own(hosted):
    names = {value for _, value in pool_choices()}
    assert {"digits", OWN, *hub_names()} <= names


def test_a_hosted_page_adds_a_model_of_the_hub_with_its_dataset(hosted):
    found = ({"dataset": "lab/reviews", "splits": {"fisher": "train", "test": "test"}}, ("text",), "label")
    message, models, *_ = added(OWN, [], "lab/model@main", found, ["text"], "label", "")
    assert "model" in message
    checkpoint, _, task = models["value"][0].partition(" => ")
    assert (checkpoint, json.loads(task)["dataset"]) == ("lab/model@main", "lab/reviews")


@pytest.mark.parametrize("name", ["tests/ui", "merging/zoo", "/etc/passwd", "a.csv", "http://127.0.0.1:1/a"])
def test_a_look_at_a_file_of_the_server_is_refused_whether_it_is_there_or_not(hosted, name):
    assert "cannot be opened here" in looked("", name, "")[0]


def test_no_message_names_a_folder_of_the_server(hosted):
    secret = str(ZOO_FOLDER / "digits" / "checkpoints" / "parity")
    for answer in (looked("", secret, "")[0], added(OWN, [], secret, ("zoo:digits/loop", (), None), [], None, "")[0]):
        assert "cannot be opened here" in answer
        assert str(ZOO_FOLDER.parent) not in answer


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parameters": 1000}, r"too large for this page: expected at most 0 million parameters, got"),
        ({"memory_bytes": 1000}, r"too large for this page: expected at most 0\.0 GB of memory, got"),
    ],
)
def test_what_is_over_the_limits_is_refused_before_it_is_opened(change, told):
    tight = replace(WITHIN, **change)
    assert not preflight(FOUR, limits=WITHIN).problems
    assert not preflight(FOUR).problems
    with pytest.raises(MergingError, match=told):
        prepare(FOUR, limits=tight)


def test_the_page_checks_the_limits_where_it_is_hosted(hosted, monkeypatch):
    assert "checks passed" in checked(*form())
    monkeypatch.setattr("components.modes.HOSTED", replace(HOSTED, parameters=1000))
    assert "too large for this page" in checked(*form())


def test_a_large_dataset_is_refused_before_it_is_downloaded(hub, tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"text": "a", "label": 0}\n' * 1000, encoding="utf-8")
    hub.add("lab/rows", tmp_path / "rows", kind="dataset")
    hub_datasets.require_dataset_size({"dataset": "lab/rows"}, 10**6)
    task = {"dataset": "lab/rows", "splits": {"fisher": "train", "test": "train"}}
    recipe = replace(FOUR, evaluation=replace(FOUR.evaluation, tasks=(task,)))
    with pytest.raises(TaskError, match=r'"lab/rows" is too large for this page: expected at most 0\.0 GB of files'):
        preflight(recipe, limits=replace(WITHIN, dataset_bytes=1000)).require()
    assert hub.downloads("train.jsonl") == []


def test_a_large_checkpoint_of_the_hub_is_refused_before_it_is_downloaded(hub):
    hub.add("lab/parity", ZOO_FOLDER / "digits" / "checkpoints" / "parity")
    recipe = replace(FOUR, models=(replace(FOUR.models[0], checkpoint="lab/parity"), *FOUR.models[1:]))
    with pytest.raises(CheckpointError, match='"lab/parity" is too large for this page'):
        prepare(recipe, limits=replace(WITHIN, parameters=1000))
    assert None not in hub.downloads("model.safetensors")  # but for its header


# Says whether the process reads a private repository, after the page's own start-up.
READS = """
import sys
import app
from merging import hub
from merging.errors import CheckpointError
try:
    print(len(hub.look_up("lab/private").sizes))
except CheckpointError as problem:
    print(problem)
"""


@pytest.mark.parametrize(("arguments", "reads"), [([], True), (["--hosted"], False)])
def test_strangers_do_not_read_the_hub_in_the_name_of_the_servers_owner(hub, tmp_path, arguments, reads):
    hub.add("lab/private", ZOO_FOLDER / "digits" / "checkpoints" / "parity", is_private=True, readers={"tester"})
    done = hub.in_client(["-c", READS, *arguments], tmp_path / "client", HF_TOKEN="hf_tester")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit() is reads, done.stdout
