"""Models of one's own: looked at, corrected, added."""

import json
import shutil

import pytest

from components.add_model import OWN, added, looked, suggested
from components.form import ROWS, WITH_TASK
from components.push_panel import pushed
from merging.pools import open_pool
from merging.zoo import ZOO_FOLDER
from tests.ui.test_client import form

CHECKPOINT = str(ZOO_FOLDER / "digits" / "checkpoints" / "parity")
TASK = "zoo:digits/parity"
FOUND = (TASK, ("image",), "parity")


@pytest.fixture
def reviews(tmp_path):
    """A table without splits."""
    rows = [{"review": f"film number {number}", "stars": number % 2} for number in range(40)]
    path = tmp_path / "reviews.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_look_shows_rows_columns_labels_and_how_the_model_reads_them():
    summary, inputs, label, order, found = looked(CHECKPOINT, TASK, "")
    assert inputs["value"] == ["image"]
    assert (label["value"], order, found) == ("parity", "", FOUND)
    for part in (
        "fisher 600, validation 250, test 347",
        "parity (number)",
        "even, odd",
        "The dataset&#x27;s labels are the",
    ):
        assert part in summary, summary


def test_what_was_corrected_is_in_the_recipe(reviews):
    summary, inputs, _, _, reference = looked("", str(reviews), "")
    assert "No input column is recognised" in summary
    assert inputs["choices"] == ["review", "stars"]
    notice, models, *rows = added(OWN, [], "org/model", reference, ["review"], "stars", "1, 0")
    assert "model is added. Add another one." in notice
    checkpoint, _, task = models["value"][0].partition(WITH_TASK)
    assert checkpoint == "org/model"
    assert json.loads(task) == {"file": str(reviews), "text": ["review"], "label": "stars", "alignment": [1, 0]}
    assert [row["visible"] for row in rows] == [True] + [False] * (ROWS - 1)


def test_a_task_that_needs_no_correction_stays_a_reference():
    *_, reference = looked(CHECKPOINT, TASK, "")
    _, models, *_ = added(OWN, [], CHECKPOINT, reference, ["image"], "parity", "")
    assert models["value"] == [f"{CHECKPOINT}{WITH_TASK}{TASK}"]
    assert models["choices"] == [("parity", models["value"][0])]


def test_the_models_of_a_pool_stay_in_the_list():
    *_, reference = looked(CHECKPOINT, TASK, "")
    _, models, *_ = added(
        "digits", ["zoo:digits/loop => zoo:digits/loop"], CHECKPOINT, reference, ["image"], "parity", ""
    )
    assert len(models["value"]) == 2
    assert len(models["choices"]) == 1 + len(open_pool("digits").models)


def test_the_order_of_labels_is_suggested_from_predictions(tmp_path):
    folder = tmp_path / "swapped"
    shutil.copytree(ZOO_FOLDER / "digits" / "checkpoints" / "parity", folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    (folder / "config.json").write_text(json.dumps(config))
    message, order = suggested(str(folder), FOUND, ["image"], "parity")
    assert order == "0, 1"
    assert "are right" in message


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (("", FOUND, ["image"], "parity", ""), "There is no checkpoint: expected an id or a folder"),
        ((CHECKPOINT, None, [], None, ""), "expected it to be looked at first"),
        ((CHECKPOINT, FOUND, ["image"], "parity", "one, two"), "The label order cannot be read"),
    ],
)
def test_what_is_missing_is_told_and_adds_nothing(values, told):
    message, models, *_ = added(OWN, [], *values)
    assert told in message
    assert models.get("value") is None


@pytest.mark.parametrize(("task", "told"), [("", "There is no dataset"), ("/nowhere/at.csv", "leads nowhere")])
def test_a_task_that_cannot_be_opened_is_told(task, told):
    summary, *_, reference = looked(CHECKPOINT, task, "")
    assert told in summary
    assert reference is None


def test_a_ninth_model_is_refused():
    message, *_ = added(OWN, ["a => b"] * ROWS, CHECKPOINT, FOUND, ["image"], "parity", "")
    assert "Too many models: expected at most 8" in message


def test_a_hosted_page_reads_no_files_and_pushes_nothing_for_strangers(monkeypatch, reviews):
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    told = "This cannot be done here: expected a page on your own machine"
    assert told in suggested(CHECKPOINT, FOUND, ["image"], "parity")[0]
    closed = "cannot be opened here: expected an embedded checkpoint or task"
    found = (str(reviews), ("image",), "parity")
    assert closed in looked(CHECKPOINT, str(reviews), "")[0]
    assert closed in added(OWN, [], CHECKPOINT, FOUND, ["image"], "parity", "")[0]
    assert closed in added(OWN, [], TASK, found, ["image"], "parity", "")[0]
    assert str(reviews.parent) not in looked(CHECKPOINT, str(reviews), "")[0]
    assert told in pushed("someone/merged", "", True, *form())[0]
