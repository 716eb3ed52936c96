"""Malformed uploads: zips of every kind, and data files that are cut short, of another kind than their ending, or odd."""

import io
import json
import random
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merging.checkpoints import open_checkpoint
from merging.tasks import open_task
from merging.uploads import Limits, receive_upload
from tests.fuzz.strategies import budget, changed, mild, scalars, texts, values
from tests.merging.test_uploads import classes, packed, picture

CHECKPOINT = open_checkpoint("zoo:sentences-gpt2/sentiment")
LIMITS = Limits(upload_bytes=1 << 20, total_bytes=1 << 20, files=50)
NAMES = (
    "cat/a.png",
    "dog/b.png",
    "../x.png",
    "/x.png",
    "C:/x.png",
    "a\\b.png",
    "",
    ".",
    "..",
    "cat/",
    "cat",
    "\0.png",
    "x" * 300 + ".png",
)
NAMES += (
    "cat/a.PNG",
    "a.zip",
    "a.exe",
    "cat/../../x.png",
    "cat//a.png",
    "́.png",
    "con.png",
    "cat/\n.png",
    "__MACOSX/a.png",
    "a/b/c/d/e.png",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the tests write what they upload."""
    return tmp_path_factory.mktemp("fuzz-uploads")


def read(path: Path) -> None:
    """All that is done with an upload: received, opened, its rows read, encoded for a model."""
    received = mild(lambda: receive_upload(path, path.parent / "into", limits=LIMITS))
    task = mild(open_task, str(received)) if received is not None else None
    for split in ("fisher", "validation", "test") if task is not None else ():
        mild(task.rows, split)
        mild(lambda split=split: task.batches(split, CHECKPOINT, examples=8))
        mild(lambda split=split: task.content_hash(split, CHECKPOINT))


@pytest.mark.filterwarnings("ignore:Duplicate name")  # which is meant
@given(
    st.lists(
        st.tuples(st.one_of(st.sampled_from(NAMES), texts), st.integers(0, 0o177777), st.binary(max_size=50)),
        max_size=6,
    )
)
@budget(700)
def test_zips_with_any_names_kinds_and_contents(folder, entries):
    path = folder / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, content in entries:
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode()[:1000] or "x")
            info.external_attr = mode << 16
            archive.writestr(info, content)
    before = {one for one in folder.parent.rglob("*") if "into" not in one.parts}
    read(path)
    assert {one for one in folder.parent.rglob("*") if "into" not in one.parts} == before, "written outside"
    assert not any(one.is_symlink() for one in folder.rglob("*"))


def _sound_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in classes(2).items():
            archive.writestr(name, content)
    return stream.getvalue()


ZIP = _sound_zip()


@given(
    cut=st.integers(0, len(ZIP)),
    flips=st.lists(st.tuples(st.integers(0, len(ZIP) - 1), st.integers(1, 255)), max_size=6),
)
@budget(300)
def test_a_zip_that_is_cut_short_or_has_bytes_turned(folder, cut, flips):
    content = bytearray(ZIP)
    for at, turned in flips:
        content[at] ^= turned
    path = folder / "damaged.zip"
    path.write_bytes(bytes(content[:cut] if not flips else content))
    read(path)


ROWS = [{"text": f"row {number}", "label": number % 2} for number in range(12)]


@given(changed(ROWS), st.sampled_from([".jsonl", ".json"]))
@budget(40)
def test_rows_of_json_with_anything_in_them(folder, rows, ending):
    path = folder / f"rows{ending}"
    rows = rows if isinstance(rows, list) else [rows]
    try:
        text = "\n".join(map(json.dumps, rows)) if ending == ".jsonl" else json.dumps(rows)
    except ValueError:  # whole numbers of thousands of digits
        return
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    read(path)


@pytest.mark.parametrize("first", ["null", "null ", " null", "5", "[1]", '"x"', "\ufeffnull", "nul", "\0"])
@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_a_row_that_is_no_object_is_refused_before_pyarrow_crashes_at_it(folder, first, ending):
    path = folder / f"first{ending}"
    path.write_text(f"{first}\n" + "\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    assert mild(open_task(str(path)).rows, "test") is None


@given(
    st.lists(st.lists(st.one_of(texts, scalars.map(lambda one: type(one).__name__)), max_size=3), max_size=12),
    st.sampled_from([".csv", ".tsv"]),
)
@budget(40)
def test_cells_of_any_kind(folder, rows, ending):
    path, mark = folder / f"cells{ending}", "," if ending == ".csv" else "\t"
    lines = ["text,label".replace(",", mark), *[mark.join(row) for row in rows]]
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    read(path)


@given(st.binary(max_size=400), st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet", ".zip"]))
@budget(50)
def test_any_bytes_under_any_ending(folder, content, ending):
    path = folder / f"bytes{ending}"
    path.write_bytes(content)
    read(path)


def _parquet(folder: Path) -> bytes:
    from datasets import Dataset

    path = folder / "sound.parquet"
    Dataset.from_list(ROWS).to_parquet(path)
    return path.read_bytes()


def test_a_parquet_file_that_is_cut_short_or_has_bits_turned(folder):
    sound, generator = _parquet(folder), random.Random(0)
    path = folder / "rows.parquet"
    for number in range(30):
        content = bytearray(sound)
        if number % 2:
            content = content[: generator.randrange(len(content))]
        else:
            for _ in range(3):
                content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        read(path)


@given(st.one_of(changed({"text": "text", "label": "label", "labels": ["a", "b"], "seed": 1, "max_tokens": 8}), values))
@budget(80)
def test_a_task_yaml_that_says_anything(folder, about):
    place = folder / "task"
    place.mkdir(exist_ok=True)
    (place / "test.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    try:
        text = json.dumps(about)  # which is YAML, too
    except ValueError:
        return
    (place / "task.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    task = mild(open_task, str(place))
    if task is not None:
        mild(task.rows, "test")
        mild(lambda: task.batches("test", CHECKPOINT))


@pytest.mark.parametrize("name", ["a.zip", "a.csv.zip", "a", "a.exe", ".zip", "a.ZIP", "a.parquet"])
def test_an_ending_that_says_little(folder, name):
    for content in (b"", picture(), b"PK\x03\x04", b"PAR1"):
        (folder / name).write_bytes(content)
        read(folder / name)


def test_a_bomb_in_a_zip_is_refused_by_what_it_unpacks_to(folder):
    path = packed(folder / "bomb.zip", {"cat/a.bmp": bytes(50 << 20), "dog/b.bmp": bytes(50 << 20)})
    assert mild(lambda: receive_upload(path, folder / "into", limits=Limits(total_bytes=60 << 20))) is None
    assert mild(lambda: receive_upload(path, folder / "into")) is None
