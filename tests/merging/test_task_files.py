"""Tasks from one file, from folders of images, and what a task says of itself; bad rows are named."""

import json

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from merging import open_checkpoint, open_task
from merging.encoding import truncated_share
from merging.errors import TaskError
from merging.shares import cut
from merging.sources import SPLITS
from merging.summaries import describe_task, fit_task
from tests import cases

ROWS = [{"sentence": f"row {number}", "label": number % 2} for number in range(50)]


def written(path, rows=ROWS):
    """A data file in the format of its name."""
    from datasets import Dataset

    data = Dataset.from_list(rows)
    write = {
        ".csv": lambda: data.to_csv(path),
        ".tsv": lambda: data.to_csv(path, sep="\t"),
        ".jsonl": lambda: data.to_json(path),
        ".json": lambda: path.write_text(json.dumps(rows)),
        ".parquet": lambda: data.to_parquet(path),
    }
    write[path.suffix.lower()]()
    return path


def pictures(folder, kinds=("cat", "dog"), count=5, shift=0):
    """A folder of class folders with different pictures."""
    for index, kind in enumerate(kinds):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = numpy.random.default_rng(shift + 100 * index + number).integers(0, 256, (16, 16), numpy.uint8)
            Image.fromarray(pixels).save(folder / kind / f"test_{number}.png")
    return folder


@pytest.mark.parametrize("name", ["a.csv", "b.tsv", "c.jsonl", "d.json", "e.parquet", "F.CSV"])
def test_one_file_is_cut_into_splits_that_hold_every_row_once(tmp_path, name):
    task = open_task(str(written(tmp_path / name)))
    splits = {split: task.rows(split)["sentence"][:] for split in SPLITS}
    assert {split: len(rows) for split, rows in splits.items()} == {"fisher": 30, "validation": 10, "test": 10}
    assert sorted(text for rows in splits.values() for text in rows) == sorted(row["sentence"] for row in ROWS)
    assert task.name == name[:1]


def test_the_cut_depends_on_the_seed_alone_and_follows_the_shares(tmp_path):
    path = str(written(tmp_path / "a.jsonl"))
    stated = {"file": path, "shares": {"fisher": 0.8, "test": 0.2}, "seed": 3}
    first, again, other = open_task(stated), open_task(dict(stated)), open_task({**stated, "seed": 4})
    assert (len(first.rows("fisher")), len(first.rows("test"))) == (40, 10)
    assert not first.has("validation")
    assert first.rows("test")["sentence"][:] == again.rows("test")["sentence"][:] != other.rows("test")["sentence"][:]
    hashes = {task.content_hash(split) for task in (first, other) for split in ("fisher", "test")}
    assert len(hashes) == 4
    assert again.content_hash("test") == first.content_hash("test")


@given(
    st.lists(st.sampled_from(["a", "b", "A ", "c", "d", "e f", "e  F"]), min_size=8, max_size=40), st.integers(0, 99)
)
def test_equal_rows_come_into_one_split_whatever_their_label(texts, seed):
    from datasets import Dataset

    rows = Dataset.from_list([{"text": text, "label": number} for number, text in enumerate(texts)])
    try:
        found = cut(rows, (("fisher", 0.5), ("test", 0.5)), seed=seed, inputs=("text",), what="it")
    except TaskError:
        return  # too few different rows
    assert sorted(found["fisher"] + found["test"]) == list(range(len(texts)))
    plain = [{" ".join(texts[row].split()).casefold() for row in numbers} for numbers in found.values()]
    assert not plain[0] & plain[1]


@pytest.mark.parametrize(
    "shares", [{}, {"fisher": 0.5}, {"train": 1.0}, {"fisher": 1.5, "test": -0.5}, {"fisher": "most"}, [0.5, 0.5], None]
)
def test_shares_without_a_meaning_are_refused(tmp_path, shares):
    with pytest.raises(
        TaskError, match=r"cannot be cut: expected shares of fisher, validation, test that sum to 1 .* got"
    ):
        open_task({"file": str(written(tmp_path / "a.csv")), "shares": shares})


def test_rows_that_are_all_equal_cannot_be_cut(tmp_path):
    path = written(tmp_path / "a.jsonl", [{"text": "same", "label": number % 2} for number in range(9)])
    with pytest.raises(TaskError, match=r"expected different rows for each, got 1 different rows and none for"):
        open_task(str(path)).rows("test")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fils": "x"}, r'got "fils"'),
        ({"label": 3}, r"has label that cannot be used: expected text, got 3"),
        ({"text": ["a", "b", "c"]}, r"expected the name of one column, or of two of texts"),
        ({"labels": "yes"}, r"has labels that cannot be used: expected a list, got 'yes'"),
        ({"alignment": [0, "1"]}, r"expected the model's output for each label, as whole numbers"),
        ({"max_tokens": 0}, r"expected a whole number of 1 or more, got 0"),
        ({"seed": -1}, r"expected a whole number of 0 or more, got -1"),
        ({"dataset": "a/b"}, r'expected one of "dataset" \(with "splits"\), "file" or "folder"'),
    ],
)
def test_fields_without_a_meaning_are_refused(tmp_path, fields, message):
    with pytest.raises(TaskError, match=message):
        open_task({"file": str(written(tmp_path / "a.csv")), **fields})


def test_fields_of_a_mapping_go_before_those_of_the_folder(tmp_path):
    written(tmp_path / "fisher.csv", [{"left": "a", "right": "b", "grade": 0}])
    (tmp_path / "task.yaml").write_text("text: left\nlabel: grade\ntitle: Grades\nmax_tokens: 9\n")
    stated = {"folder": str(tmp_path), "text": ["left", "right"], "labels": ["no", "yes"], "name": "graded"}
    task = open_task({**stated, "prompt": "{left}?", "templates": ["a {}."]})
    assert (task.inputs, task.label, task.labels) == (("left", "right"), "grade", ("no", "yes"))
    assert (task.title, task.name, task.max_tokens) == ("Grades", "graded", 9)
    assert (task.prompt, task.templates) == ("{left}?", ("a {}.",))


def test_a_path_that_leads_nowhere_offers_the_nearest(tmp_path):
    written(tmp_path / "reviews.csv")
    with pytest.raises(TaskError, match=r'got a path that leads nowhere. Did you mean "reviews.csv"'):
        open_task(str(tmp_path / "review.csv"))
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(TaskError, match=r"expected a folder, a file that ends in .*, got a file of another kind"):
        open_task({"file": str(tmp_path / "model.bin")})
    with pytest.raises(TaskError, match=r"a dataset of the Hub is \{dataset: nyu-mll/glue"):
        open_task("nyu-mll/glue")


def test_class_folders_are_cut_and_split_folders_are_kept(tmp_path):
    flat = open_task(str(pictures(tmp_path / "flat")))
    assert [len(flat.rows(split)) for split in SPLITS] == [6, 2, 2]
    for shift, split in enumerate(("train", "validation", "test")):
        pictures(tmp_path / "split" / split, shift=10 * shift)
    # A class that one split lacks keeps its index.
    (tmp_path / "split" / "test" / "cat").rename(tmp_path / "split" / "test" / "eel")
    task = open_task(str(tmp_path / "split"))
    assert [len(task.rows(split)) for split in SPLITS] == [10, 10, 10]
    assert task.rows("test").features["label"].names == ["cat", "dog", "eel"]
    assert set(task.rows("test")["label"]) == {1, 2}


def test_equal_pictures_come_into_one_split(tmp_path):
    folder = pictures(tmp_path / "twins", count=10)
    for number in range(10):
        (folder / "dog" / f"test_{number}.png").write_bytes((folder / "cat" / f"test_{number}.png").read_bytes())
    task = open_task(str(folder))
    seen = [{image.tobytes() for image in task.rows(split)["image"]} for split in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 10


def test_the_content_of_pictures_decides_their_hash(tmp_path):
    one, two = pictures(tmp_path / "one"), pictures(tmp_path / "two")
    first = open_task(str(one)).content_hash("test")
    assert open_task(str(two)).content_hash("test") == first
    pictures(two, count=1, shift=50)
    assert open_task(str(two)).content_hash("test") != first


def test_an_image_model_reads_class_folders(tmp_path):
    parity = open_checkpoint("zoo:digits/parity")
    task = open_task(str(pictures(tmp_path / "digits", kinds=("Odd", "Even"))))
    batches = task.batches("fisher", parity)
    assert batches[0]["pixel_values"].shape[0] == 6
    # Folders are sorted (Even, Odd), as the model's outputs are.
    assert batches[0]["labels"].tolist() == task.rows("fisher")["label"][:]


def test_a_damaged_picture_is_named(tmp_path):
    folder = pictures(tmp_path / "digits", kinds=("odd", "even"))
    for kind in ("odd", "even"):
        content = (folder / kind / "test_3.png").read_bytes()
        (folder / kind / "test_3.png").write_bytes(content[: len(content) // 2])
    task = open_task({"folder": str(folder), "shares": {"fisher": 1.0}})
    with pytest.raises(TaskError, match=r'has a damaged picture: expected one .* at ".*even/test_3.png", got'):
        task.batches("fisher", open_checkpoint("zoo:digits/parity"))


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("t.jsonl", [{"text": "a", "label": 0}, {"text": None, "label": 1}] * 2, r'"text".* none in row 2 and 1 more'),
        ("t.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": None}], r'"label".* got none in row 2\.'),
        ("t.csv", [{"text": "a", "label": 0}, {"text": "b", "label": None}], r'"label".* got none in row 2\.'),
        ("t.parquet", [{"text1": "a", "text2": None, "label": 0}], r'"text2".* got none in row 1\.'),
        ("t.jsonl", [{"text": "a", "label": -1}] * 3, r'has no labels: .* got "-1" in every row. Pick another split'),
        ("t.jsonl", [{"text": "a", "label": None}] * 3, r'has no labels: .* got "None" in every row'),
        ("t.jsonl", [{"text": " ", "label": 0}, {"text": "", "label": 1}], r"has only empty texts .* none in 2 rows"),
    ],
)
def test_missing_values_are_named_with_their_row(tmp_path, name, rows, message):
    with pytest.raises(TaskError, match=message):
        open_task(str(written(tmp_path / name, rows))).rows("fisher")


def test_an_empty_text_is_kept_and_counted(tmp_path):
    rows = [*ROWS, {"sentence": "", "label": 0}, {"sentence": "NA", "label": 1}, {"sentence": "null", "label": 1}]
    task = open_task({"file": str(written(tmp_path / "a.csv", rows)), "shares": {"fisher": 1.0}})
    assert {"", "NA", "null"} <= set(task.rows("fisher")["sentence"])
    assert "1 of 53 rows have an empty text; they are kept." in describe_task(json.loads(task.reference)).notes


def test_rows_that_a_class_label_says_have_none_are_left_out(tmp_path):
    from datasets import ClassLabel, Dataset

    data = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, -1, 1]})
    data.cast_column("label", ClassLabel(names=["no", "yes"])).to_parquet(tmp_path / "fisher.parquet")
    assert open_task(str(tmp_path)).rows("fisher")["text"][:] == ["a", "c"]


def test_a_task_is_described_for_correction(tmp_path):
    rows = [
        {"id": number, "Review": f"row {number} " + "x" * 300, "Stars": ["bad", "good"][number % 2]}
        for number in range(20)
    ]
    path = str(written(tmp_path / "reviews.csv", rows))
    guess = describe_task(path)
    assert guess.columns == (("id", "number"), ("Review", "text"), ("Stars", "text"))
    assert (guess.inputs, guess.label, guess.labels) == (None, None, None)
    assert guess.notes[-2:] == ("No input column is recognised: name it.", "No label column is recognised: name it.")
    assert guess.splits == {"fisher": 12, "validation": 4, "test": 4}
    assert guess.examples[0]["Review"].endswith("…")
    corrected = describe_task({"file": path, "text": "Review", "label": "Stars"})
    assert (corrected.inputs, corrected.label, corrected.labels) == (("Review",), "Stars", ("bad", "good"))
    assert len(open_task(corrected.reference).rows("test")) == 4


def test_pictures_are_described_without_being_read(tmp_path):
    folder = pictures(tmp_path / "photos")
    (folder / "cat" / "test_0.png").write_bytes(b"no picture")
    found = describe_task(str(folder))
    assert found.columns == (("image", "image"), ("label", "label of 2"))
    assert (found.inputs, found.labels) == (("image",), ("cat", "dog"))
    assert found.examples[0]["image"].startswith("test_")


def test_a_folder_of_splits_is_described_with_what_is_wrong_in_one(tmp_path):
    written(tmp_path / "fisher.jsonl")
    written(tmp_path / "test.jsonl", [{"sentence": "a", "label": -1}])
    found = describe_task(str(tmp_path))
    assert found.splits == {"fisher": 50}
    assert "has no labels" in found.notes[0]
    (tmp_path / "fisher.jsonl").unlink()
    with pytest.raises(TaskError, match="has no labels"):
        describe_task(str(tmp_path))


@pytest.fixture
def reader(tmp_path):
    """A text classifier whose tokenizer knows few words."""
    from transformers import BertTokenizerFast

    folder = tmp_path / "reader"
    cases.model_case("bert-2").save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "row", "long"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return open_checkpoint(str(folder))


def test_texts_are_cut_at_max_tokens_and_their_share_is_told(tmp_path, reader):
    rows = [{"text": "row " * (20 if number < 5 else 3), "label": number % 2} for number in range(20)]
    path = str(written(tmp_path / "a.jsonl", [{**row, "text": row["text"] + str(n)} for n, row in enumerate(rows)]))
    stated = {"file": path, "shares": {"fisher": 1.0}}
    whole, short = open_task(stated), open_task({**stated, "max_tokens": 8})
    width = {
        task: max(batch["input_ids"].shape[1] for batch in task.batches("fisher", reader)) for task in (whole, short)
    }
    assert (width[whole], width[short]) == (23, 8)
    assert fit_task(whole, "fisher", reader).truncated_share == 0
    found = fit_task(short, "fisher", reader)
    assert (found.truncated_share, found.rows) == (0.25, 20)
    assert "25.0% of the rows are cut at 8 tokens." in found.notes
    assert whole.content_hash("fisher") != short.content_hash("fisher")
    assert truncated_share([["row " * 30]], reader, max_tokens=31) == 1.0


def test_how_a_checkpoint_reads_a_task_is_told():
    found = fit_task(open_task("zoo:digits/parity"), "test", open_checkpoint("zoo:digits/parity"))
    assert (found.labels, found.alignment.order, found.truncated_share) == (("even", "odd"), (0, 1), 0.0)
    assert found.notes == ("The dataset's labels are the model's.",)


def test_batches_of_one_file_are_those_of_the_same_rows_in_a_folder(tmp_path, reader):
    path = written(tmp_path / "a.jsonl")
    task = open_task(str(path))
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder / "test.jsonl", list(task.rows("test")))
    one, two = (open_task(str(where)).batches("test", reader)[0] for where in (path, folder))
    assert all(torch.equal(one[name], two[name]) for name in one)
