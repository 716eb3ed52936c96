"""Tasks: which rows, columns and labels a folder gives, and what is refused."""

import json

import pytest
import torch

from merging import open_checkpoint, open_task
from merging.columns import guess_columns, label_indices
from merging.errors import TaskError
from tests import cases


@pytest.fixture
def parity():
    return open_checkpoint("zoo:digits/parity")


def write(folder, rows, split="fisher", about=None):
    """A folder task of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if about is not None:
        (folder / "task.yaml").write_text(about)
    return folder


def test_splits_are_disjoint_and_every_row_is_there(parity):
    task = open_task("zoo:digits/parity")
    seen = []
    for split in ("fisher", "validation", "test"):
        batches = task.batches(split, parity, batch_size=50)
        rows = torch.cat([batch["pixel_values"] for batch in batches]).flatten(1)
        assert len(rows) == len(task.rows(split))
        seen.append({tuple(row.tolist()) for row in rows})
    assert len(set.union(*seen)) == sum(len(rows) for rows in seen)


def test_a_draw_of_rows_depends_on_the_seed_alone_and_not_on_the_batch_size(parity):
    task = open_task("zoo:digits/parity")

    def drawn(seed, batch_size):
        batches = task.batches("fisher", parity, batch_size=batch_size, examples=20, seed=seed)
        return torch.cat([batch["pixel_values"] for batch in batches])

    assert drawn(0, 20).shape[0] == 20
    assert torch.equal(drawn(0, 20), drawn(0, 7))
    assert not torch.equal(drawn(0, 20), drawn(1, 20))


def test_a_draw_of_rows_from_a_sorted_split_holds_every_label(tmp_path):
    rows = [{"text": f"row {index}", "label": index // 100} for index in range(300)]
    task = open_task(str(write(tmp_path / "sorted", rows)))
    assert set(task.rows("fisher", examples=40)["label"]) == {0, 1, 2}


def test_more_examples_than_rows_are_all_rows(tmp_path):
    task = open_task(str(write(tmp_path / "few", [{"text": "a", "label": 0}] * 3)))
    assert len(task.rows("fisher", examples=10)) == 3


def test_the_content_hash_follows_the_content_and_the_columns(tmp_path):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    first = open_task(str(write(tmp_path / "one", rows)))
    same = open_task(str(write(tmp_path / "two", rows)))
    turned = open_task(str(write(tmp_path / "three", rows[::-1])))
    named = open_task(str(write(tmp_path / "four", rows, about="labels: [yes, no]")))
    assert first.content_hash("fisher") == same.content_hash("fisher")
    assert len({task.content_hash("fisher") for task in (first, turned, named)}) == 3


@pytest.mark.parametrize(
    ("row", "inputs", "label"),
    [
        ({"sentence": "a", "idx": 1, "label": 0}, ("sentence",), "label"),
        ({"sentence1": "a", "sentence2": "b", "label": 0}, ("sentence1", "sentence2"), "label"),
        ({"hypothesis": "b", "premise": "a", "labels": 0}, ("premise", "hypothesis"), "labels"),
        ({"text": "a", "fine_label": 0}, ("text",), "fine_label"),
    ],
)
def test_usual_columns_are_recognised(tmp_path, row, inputs, label):
    rows = open_task(str(write(tmp_path / "task", [row]))).rows("fisher")
    assert guess_columns(rows, None, None, reference="task") == (inputs, label)


def test_other_columns_are_named_in_task_yaml(tmp_path):
    about = "text: [left, right]\nlabel: grade\ntitle: Pairs\n"
    task = open_task(str(write(tmp_path / "task", [{"left": "a", "right": "b", "grade": 0}], about=about)))
    assert (task.inputs, task.label, task.title) == (("left", "right"), "grade", "Pairs")
    assert guess_columns(task.rows("fisher"), task.inputs, task.label, reference="task") == (("left", "right"), "grade")


@pytest.mark.parametrize(
    ("labels", "declared", "expected"),
    [
        ([0, 1, 1], None, [0, 1, 1]),
        (["odd", "even"], None, [1, 0]),
        ([0, 1], ("odd", "even"), [1, 0]),
        ([0, 1], ("negative", "positive"), [0, 1]),
        (["no", "yes"], ("no", "yes"), [0, 1]),
    ],
)
def test_labels_become_the_models_indices(tmp_path, parity, labels, declared, expected):
    """The model's outputs are (even, odd)."""
    rows = open_task(str(write(tmp_path / "t", [{"text": "a", "label": label} for label in labels]))).rows("fisher")
    assert label_indices(rows, "label", declared, parity, reference="t") == expected


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], ["odd", "prime"], [0.5, 1.0]])
def test_labels_that_the_model_does_not_have_are_refused(tmp_path, parity, labels):
    rows = open_task(str(write(tmp_path / "t", [{"text": "a", "label": label} for label in labels]))).rows("fisher")
    with pytest.raises(TaskError, match=r'Task "t" does not fit "zoo:digits/parity": expected labels .*, got'):
        label_indices(rows, "label", None, parity, reference="t")


def test_text_for_an_image_model_is_refused(tmp_path, parity):
    task = open_task(str(write(tmp_path / "t", [{"text": "a", "label": 0}])))
    with pytest.raises(TaskError, match=r"expected one column of images, got str. Pick a task with images"):
        task.batches("fisher", parity)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fisher.jsonl", "", r"has no rows: expected at least one, got 0"),
        ("fisher.csv", "text,label\n", r"has no rows: expected at least one, got 0"),
        ("fisher.jsonl", '{"text": ', r'"fisher.jsonl" cannot be read: expected .jsonl data'),
        ("fisher.parquet", "no parquet", r'"fisher.parquet" cannot be read: expected .parquet data'),
        ("test.csv", "text,label\na,0\n", r'has no fisher split: expected a file fisher.parquet.*got "test"'),
    ],
)
def test_a_split_without_rows_says_so(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(TaskError, match=message):
        open_task(str(tmp_path)).rows("fisher")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("zoo:digits/loops", r'Unknown task: .* got "loops". Did you mean "loop"'),
        ("zoo:digit/loop", r'Unknown pool: .* Did you mean "digits"'),
        ("/nowhere/at/all", r"expected a folder, a file that ends in .* got a path that leads nowhere"),
        ({"dataset": "nyu-mll/glue"}, r'expected "dataset" and "splits"'),
        ({"dataset": "a/b", "splits": {"test": "test"}, "split": "x"}, r'among .* got "split". Did you mean "splits"'),
        ({"dataset": "a/b", "splits": {"tests": "test"}}, r'expected "dataset" and "splits"'),
        ({"text": "sentence"}, r'expected one of "dataset" .* got "text"'),
        (5, r"expected zoo:POOL/NAME, a folder, a file, or a mapping .* got 5"),
    ],
)
def test_a_reference_to_nothing_says_what_was_expected(reference, message):
    with pytest.raises(TaskError, match=message):
        open_task(reference)


def test_a_hub_task_that_cannot_be_had_says_so():
    task = open_task({"dataset": "nyu-mll/glue", "config": "rte", "splits": {"fisher": "train"}})
    assert task.name == "rte"
    with pytest.raises(TaskError, match=r'Dataset "nyu-mll/glue" cannot be had: .* Check the spelling'):
        task.rows("fisher")
    with pytest.raises(TaskError, match=r"has no test split"):
        task.rows("test")


@pytest.mark.parametrize("content", [b"a: [", b"- 1", b"\xff\xfe\x00", b"just text"])
def test_a_damaged_task_yaml_is_refused(tmp_path, content):
    folder = write(tmp_path / "t", [{"text": "a", "label": 0}])
    (folder / "task.yaml").write_bytes(content)
    with pytest.raises(TaskError, match=r"is damaged: expected .* in task.yaml"):
        open_task(str(folder))


def test_a_folder_without_data_is_no_task(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(TaskError, match=r'is no task: expected one file per split .* got "notes.txt"'):
        open_task(str(tmp_path))


def test_an_unknown_column_offers_the_nearest(tmp_path):
    folder = write(tmp_path / "t", [{"sentence": "a", "label": 0}], about="text: sentense")
    task = open_task(str(folder))
    with pytest.raises(TaskError, match=r'no column "sentense": .* Did you mean "sentence"'):
        guess_columns(task.rows("fisher"), task.inputs, task.label, reference="t")


def test_a_recipe_opens_every_task_of_its_preset():
    for preset in ("four-tasks", "five-seeds", "robust"):
        recipe = cases.quick_recipe(preset)
        for reference in [*(model.task for model in recipe.models), *recipe.evaluation.tasks]:
            assert open_task(reference).has("test")


def test_a_hub_task_without_validation_gets_one_cut_from_its_fisher_rows(tmp_path):
    lines = "".join(f'{{"sentence": "row {number}", "label": {number % 2}}}\n' for number in range(50))
    (tmp_path / "train.jsonl").write_text(lines)
    task = open_task({"dataset": str(tmp_path), "splits": {"fisher": "train"}})
    fisher, validation = (set(task.rows(split)["sentence"]) for split in ("fisher", "validation"))
    assert len(validation) == 10
    assert len(fisher) == 40
    assert not fisher & validation
    assert set(task.rows("validation")["sentence"]) == validation
