"""JSON with a null in place of a row, at which pyarrow 26 ends the process: refused in words before it is read."""

import json

import pytest

from merging.errors import TaskError
from merging.own_data import require_no_null_row
from tests.loopback_hub import loopback_hub
from tests.merging.test_hub_tasks import CLIENT, jsonl, rows

TASK = '{{"dataset": "{}", "splits": {{"fisher": "train", "test": "train"}}}}'
NULLS = {"first": "null\n{rows}", "all": "null\nnull\n", "list": "[\n null, {row}]", "later": "{rows}null\n"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with loopback_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


def answers(hub, tmp_path, name):
    """What reading and describing a dataset give, each in a process of its own."""
    for number, expression in enumerate(
        (f"len(open_task({TASK.format(name)}).rows('test'))", f"str(describe_task({{'dataset': '{name}'}}))")
    ):
        done = hub.in_client(["-c", CLIENT, expression], tmp_path / f"home-{number}")
        assert done.returncode == 0, done.stderr[-2000:]
        yield json.loads(done.stdout)


@pytest.mark.parametrize("kind", NULLS)
def test_a_dataset_on_the_hub_with_a_null_row_is_refused(hub, tmp_path, kind):
    lines = [json.dumps(row) for row in rows("train", 20)]
    folder = tmp_path / "repository"
    folder.mkdir()
    text = NULLS[kind].format(rows="\n".join(lines) + "\n", row=lines[0])
    (folder / f"train.{'json' if kind == 'list' else 'jsonl'}").write_text(text)
    hub.add(f"lab/{kind}", folder, kind="dataset")
    for answer in answers(hub, tmp_path, f"lab/{kind}"):
        assert "expected an object in braces for each row, got null in line" in str(answer)


def test_a_sound_dataset_is_read(hub, tmp_path):
    hub.add("lab/sound", jsonl(tmp_path / "repository", {"train": rows("train", 20)}), kind="dataset")
    count, description = answers(hub, tmp_path, "lab/sound")
    assert count  # a part of them: one split stands for both
    assert "sentence" in description


def test_a_folder_with_a_null_row_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text('null\n{"sentence": "a", "label": 1}\n')
    with open(tmp_path / "train.jsonl", "rb") as file, pytest.raises(TaskError, match="got null in line 1"):
        require_no_null_row(file, "train.jsonl")


def test_nulls_within_rows_are_read(tmp_path):
    (tmp_path / "train.json").write_text('[\n{"sentence": null,\n "label": 1},\nnull\n]')
    with open(tmp_path / "train.json", "rb") as file:
        require_no_null_row(file, "train.json")
