"""What a visitor of a hosted page sends: read under a name that says nothing of the server, by who knows it, for a while."""

import json
import shutil

import pytest

from components import logs
from components.add_model import OWN, added, looked
from components.form import Form, recipe_of
from components.uploads import uploaded
from components.visit_folders import FOLDERS
from merging.errors import TaskError
from merging.tasks import open_task
from merging.upload_references import UPLOADED, upload_path
from tests.ui.test_client import form

TASK = "zoo:digits/parity"


@pytest.fixture
def hosted(monkeypatch):
    monkeypatch.setenv("FISHER_STUDIO_HOSTED", "1")
    monkeypatch.setenv("FISHER_UPLOADS_DIR", str(FOLDERS.server))


@pytest.fixture
def reviews(tmp_path):
    path = tmp_path / "my reviews.jsonl"
    rows = [{"text": f"film number {number}", "label": number % 2} for number in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    for label in ("cat", "dog"):
        (tmp_path / "zip" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (8, 8), 10 * number + (label == "dog")).save(tmp_path / "zip" / label / f"{number}.png")
    return shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "zip")


def test_a_table_is_looked_at_corrected_and_added_under_a_name_that_says_nothing(hosted, reviews):
    reference = uploaded(str(reviews))
    assert UPLOADED.fullmatch(reference)
    assert reference.endswith("/my-reviews.jsonl")
    reviews.unlink()  # Gradio deletes its own copy
    summary, inputs, label, _, found = looked("", reference, "")
    assert "fisher 24, validation 8, test 8" in summary
    assert (inputs["value"], label["value"]) == (["text"], "label")
    _, models, *_ = added(OWN, [], TASK, found, ["text"], "label", "1, 0")
    values = [models["value"][0], f"{TASK} => {reference}"]
    recipe = recipe_of(Form.of(*form(models=values)), hosted=True)
    assert recipe.models[0].task == {"file": reference, "alignment": [1, 0]}
    assert recipe.models[1].task == reference
    assert len(open_task(recipe.models[0].task).rows("fisher")) == 24
    assert str(FOLDERS.server) not in recipe.to_yaml() + summary


def test_the_log_counts_uploads_without_their_names(hosted, reviews, tmp_path, caplog):
    caplog.set_level("INFO", logs.STUDIO)
    size = reviews.stat().st_size
    uploaded(str(reviews))
    (tmp_path / "rows.pkl").write_text("xy")
    uploaded(str(tmp_path / "rows.pkl"))
    (done, done_of), (refused, refused_of) = [(record.message, record.fields) for record in caplog.records]
    assert (done, refused) == ("uploaded", "upload_refused")
    assert (done_of["bytes"], refused_of["bytes"], refused_of["error"]) == (size, 2, "TaskError")
    assert "reviews" not in str(done_of)
    assert "rows" not in str(refused_of)


def test_a_zip_of_pictures_is_unpacked_and_read(hosted, pictures):
    reference = uploaded(pictures)
    summary, *_, found = looked("", reference, "")
    assert "cat, dog" in summary
    _, models, *_ = added(OWN, [], TASK, found, ["image"], "label", "1, 0")
    task = recipe_of(Form.of(*form(models=[models["value"][0]] * 2)), hosted=True).models[0].task
    assert open_task(task).rows("fisher")[0]["image"].size == (8, 8)


def test_the_rows_that_datasets_keeps_go_with_the_upload(hosted, reviews):
    reference = uploaded(str(reviews))
    open_task(reference).rows("test")
    folder = upload_path(reference).parent
    assert list(folder.rglob("*.arrow"))
    FOLDERS.close()
    assert not folder.exists()
    with pytest.raises(TaskError, match="expected an upload of this visit"):
        open_task(reference)


@pytest.mark.parametrize("name", ["rows.pkl", "rows.py", "rows"])
def test_other_files_are_refused(hosted, tmp_path, name):
    (tmp_path / name).write_text("x")
    assert uploaded(str(tmp_path / name)) == ""


@pytest.mark.parametrize(
    "reference",
    [
        "upload:",
        "upload:../../etc/passwd",
        "upload:" + "0" * 32 + "/" + "1" * 16 + "/rows.csv",
        "upload:" + "0" * 32 + "/" + "1" * 16 + "/../../../rows.csv",
        "upload:" + "0" * 32 + "//rows.csv",
        "upload:/etc/passwd",
    ],
)
def test_a_name_that_is_no_upload_opens_nothing(hosted, reference):
    told = looked("", reference, "")[0]
    assert "cannot be opened here" in told or "expected an upload of this visit" in told
    with pytest.raises(TaskError, match="expected an upload of this visit"):
        open_task(reference)


def test_on_ones_own_machine_a_file_stays_where_it_is(reviews):
    assert uploaded(str(reviews)) == str(reviews)
