"""Uploads: what is refused before it is read, what is refused while it is unpacked, and that nothing is half written."""

import io
import os
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy
import pytest
from PIL import Image

from merging import open_task
from merging.errors import TaskError
from merging.uploads import Limits, receive_upload, unpack_images
from tests.merging.test_full_disk import small_disk

ROOT = Path(__file__).resolve().parents[2]


def picture(value=0, size=8, form="PNG"):
    """A picture's bytes; each value another picture."""
    pixels = numpy.random.default_rng(value).integers(0, 256, (size, size, 3), dtype=numpy.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def packed(path, entries, **settings):
    """A zip of names (or ZipInfo) and contents."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **settings) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def classes(count=6, folder=""):
    """Entries of two class folders."""
    return {
        f"{folder}{kind}/{number}.png": picture(number + 100 * (kind == "dog"))
        for kind in ("cat", "dog")
        for number in range(count)
    }


def entry(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def is_clean(folder):
    return not folder.exists() or not [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def refused(tmp_path):
    """Unpacks a zip that must be refused; returns the message."""

    def run(entries, limits=None, archive=None):
        archive = archive or packed(tmp_path / "photos.zip", entries)
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(TaskError) as caught:
            receive_upload(archive, tmp_path / "into", limits=limits or Limits())
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == before, "nothing is half written"
        assert is_clean(tmp_path / "into")
        message = str(caught.value)
        assert "expected" in message
        assert ", got " in message
        return message

    return run


@pytest.mark.parametrize("folder", ["", "photos/", "photos/inner/"])
def test_a_zip_of_class_folders_becomes_a_task(tmp_path, folder):
    archive = packed(
        tmp_path / "my photos.zip", {**classes(folder=folder), "__MACOSX/._x.png": b"", f"{folder}.DS_Store": b""}
    )
    task = open_task(str(receive_upload(archive, tmp_path / "into")))
    splits = [task.rows(split) for split in ("fisher", "validation", "test")]
    assert sum(map(len, splits)) == 12
    assert splits[0].features["label"].names == ["cat", "dog"]
    assert splits[0][0]["image"].size == (8, 8)
    assert task.name == "my-photos"


def test_a_zip_with_split_folders_keeps_its_splits(tmp_path):
    entries = {
        f"{split}/{kind}/{number}.png": picture(number + shift)
        for split, shift in (("train", 0), ("val", 10), ("test", 20))
        for kind in ("cat", "dog")
        for number in range(3)
    }
    task = open_task(str(receive_upload(packed(tmp_path / "a.zip", entries), tmp_path / "into")))
    assert {split: len(task.rows(split)) for split in ("fisher", "validation", "test")} == dict(
        fisher=6, validation=6, test=6
    )


def test_the_same_upload_is_unpacked_once(tmp_path):
    archive = packed(tmp_path / "a.zip", classes())
    first = receive_upload(archive, tmp_path / "into")
    stamp = first.stat().st_mtime_ns
    assert receive_upload(archive, tmp_path / "into") == first
    assert first.stat().st_mtime_ns == stamp


def test_a_data_file_is_taken_as_it_is(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,0\n")
    assert receive_upload(path) == path


def test_a_visit_has_its_own_copy_of_a_data_file(tmp_path):
    path = tmp_path / "my rows.CSV"
    path.write_text("text,label\na,0\n")
    found = receive_upload(path, tmp_path / "into")
    assert found.is_relative_to(tmp_path / "into")
    assert found.name == "my-rows.csv"
    assert receive_upload(path, tmp_path / "into") == found
    path.unlink()
    assert found.read_text() == "text,label\na,0\n"
    assert [one for one in (tmp_path / "into").rglob("*") if one.is_file()] == [found]


UNPACKING = """
import sys
from pathlib import Path
from merging.uploads import receive_upload
print("ready", flush=True)
sys.stdin.readline()
print(receive_upload(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_two_processes_unpack_the_same_upload_at_once(tmp_path):
    archive = packed(tmp_path / "a.zip", classes(40))
    command = [sys.executable, "-c", UNPACKING, str(archive), str(tmp_path / "into")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    found = Path(outputs[0][0].strip())
    assert sum(path.is_file() for path in found.rglob("*")) == 80
    assert [path for path in found.parent.iterdir() if path != found] == []


def test_a_data_file_for_which_there_is_no_room_is_told_and_nothing_is_left(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "a,0\n" * 100_000)
    with small_disk(tmp_path / "disk"):
        with pytest.raises(TaskError, match=r'"rows.csv" cannot be kept: expected room on the disk, got "'):
            receive_upload(path, tmp_path / "disk" / "uploads")
        assert [one for one in (tmp_path / "disk").rglob("*") if one.name != "uploads"] == []


def test_without_a_folder_a_zip_is_unpacked_into_the_cache_and_counts_there(tmp_path, fresh_cache, monkeypatch):
    first = receive_upload(packed(tmp_path / "a.zip", classes()))
    assert first.is_relative_to(fresh_cache / "uploads")
    old = time.time() - 24 * 3600
    os.utime(first.parent, (old, old))
    monkeypatch.setenv("FISHER_CACHE_LIMIT", "0")
    second = receive_upload(packed(tmp_path / "b.zip", classes(3)))
    assert second.is_dir()
    assert list((fresh_cache / "uploads").iterdir()) == [second.parent]


def test_an_upload_that_is_opened_again_is_not_the_next_to_go(tmp_path, fresh_cache):
    archive = packed(tmp_path / "a.zip", classes())
    found = receive_upload(archive)
    os.utime(found.parent, (0, 0))
    assert receive_upload(archive) == found
    assert found.parent.stat().st_mtime > time.time() - 60


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "C:/evil.png", "cat\\..\\evil.png", "..\\..\\evil.png"],
)
def test_an_entry_that_leads_outside_is_refused(refused, tmp_path, name):
    message = refused({**classes(), name: picture()})
    assert "expected paths inside the zip" in message
    assert not list(tmp_path.parent.rglob("evil.png"))


def test_a_link_is_refused(refused):
    assert 'the link or device "cat/link.png"' in refused({**classes(), entry("cat/link.png", 0o120777): "/etc/passwd"})
    assert 'the link or device "cat/pipe.png"' in refused({**classes(), entry("cat/pipe.png", 0o010666): b""})


def test_an_encrypted_entry_is_refused(refused, tmp_path):
    archive = packed(tmp_path / "secret.zip", classes())
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        content[start + offset] |= 1
    archive.write_bytes(content)
    assert 'expected files without a password, got the encrypted "cat/0.png"' in refused(None, archive=archive)


@pytest.mark.parametrize("name", ["cat/more.zip", "cat/more.tar.gz", "more.7z", "cat/more.RAR"])
def test_a_nested_archive_is_refused(refused, name):
    assert f'got the nested archive "{name}". Unpack it first.' in refused({**classes(), name: b"x"})


@pytest.mark.parametrize("name", ["cat/run.exe", "README.md", "cat/vector.svg", "cat/noending", "labels.csv"])
def test_another_kind_of_file_is_refused(refused, name):
    message = refused({**classes(), name: b"x"})
    assert "expected pictures (.png" in message
    assert f'got "{name}". Take it out.' in message


def test_a_bomb_is_refused_by_what_it_says_of_itself(refused):
    message = refused({**classes(), "cat/big.bmp": b"\0" * (11 << 20)})
    assert "content at most 200 times its size" in message
    assert "zip bomb" in message


def test_a_bomb_that_lies_about_its_size_is_refused_while_it_is_unpacked(refused, tmp_path):
    archive = packed(tmp_path / "liar.zip", {**classes(), "cat/big.bmp": b"\0" * (1 << 20)})
    content = bytearray(archive.read_bytes())
    lie = struct.pack("<L", 50)
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        content[content.rfind(signature) + offset : content.rfind(signature) + offset + 4] = lie
    archive.write_bytes(content)
    refused(None, archive=archive)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(upload_bytes=100), r"is too large: expected at most 100 bytes, got"),
        (Limits(total_bytes=100), r"expected at most 100 bytes unpacked, got"),
        (Limits(files=5), r"expected at most 5 files, got 12"),
    ],
)
def test_too_much_is_refused(refused, limits, expected):
    assert expected in refused(classes(), limits)


def test_ten_gigabytes_are_refused_before_they_are_read(refused, tmp_path, monkeypatch):
    for name in ("rows.csv", "photos.zip"):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(10 * 10**9)  # sparse: it takes no room
        monkeypatch.setattr("merging.uploads.zipfile.ZipFile", None)
        assert "is too large: expected at most 2.1 GB, got 10.0 GB." in refused(None, archive=path)
        path.unlink()


def test_a_full_disk_is_seen_before_unpacking(refused, monkeypatch):
    monkeypatch.setattr("merging.uploads.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    assert "of free disk, got 10 bytes. Free some space." in refused(classes())


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + b"\0" * 10])
def test_what_is_no_zip_is_refused(refused, tmp_path, content):
    (tmp_path / "broken.zip").write_bytes(content)
    assert "expected a sound zip file" in refused(None, archive=tmp_path / "broken.zip")


def test_a_zip_that_broke_at_half_or_has_a_damaged_entry_is_refused(refused, tmp_path):
    archive = packed(tmp_path / "half.zip", classes(40))
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "expected a sound zip file" in refused(None, archive=archive)
    middle = whole.find(b"cat/3.png") + 60
    archive.write_bytes(whole[:middle] + b"\xff" * 40 + whole[middle + 40 :])
    assert "expected a sound zip file" in refused(None, archive=archive)


@pytest.mark.parametrize("content", [b"", b"no picture", picture()[:60], picture(form="JPEG")[:40]])
def test_a_damaged_picture_is_named(refused, content):
    message = refused({**classes(), "cat/bad.png": content})
    assert '"cat/bad.png" in "photos.zip" cannot be read: expected a picture, got' in message


def test_a_picture_that_is_a_bomb_itself_is_refused(refused, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 30)
    assert "expected a picture, got" in refused(classes())


@pytest.mark.parametrize("entries", [{}, {"cat/": b""}, {".DS_Store": b""}])
def test_a_zip_without_pictures_is_refused(refused, entries):
    assert "expected folders of pictures, one per class, got no pictures" in refused(entries)


def test_names_that_only_case_tells_apart_are_refused(refused):
    assert 'expected every file once, got twice "cat/0.png"' in refused({**classes(), "cat/0.PNG": picture(5)})


@pytest.mark.parametrize("name", ["model.bin", "rows.xlsx", "noending", "photos.tar.gz"])
def test_an_upload_of_another_kind_is_refused(refused, tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    message = refused(None, archive=tmp_path / name)
    assert "expected a file that ends in .parquet, .jsonl, .json, .csv, .tsv, .zip, got" in message


def test_pictures_without_class_folders_are_no_task(tmp_path):
    folder = unpack_images(packed(tmp_path / "flat.zip", {"0.png": picture(), "1.png": picture(1)}), tmp_path / "flat")
    with pytest.raises(TaskError, match="or a folder of pictures per class"):
        open_task(str(folder))


def test_an_upload_that_is_not_there_says_so(tmp_path):
    with pytest.raises(TaskError, match="cannot be read: expected a file, got"):
        receive_upload(tmp_path / "gone.zip")
