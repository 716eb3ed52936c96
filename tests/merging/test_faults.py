"""Faults in the middle of a write: processes killed there, disks that fill up at any byte, a Hub that lies of sizes.

README's table "What happens when something breaks" names these tests and those of other files.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from gradio_client import Client
from safetensors import safe_open

import merging
from components import export_panel
from components.visit_folders import VisitFolders
from merging import open_checkpoint
from merging.cache_space import make_room
from merging.errors import CacheError, CheckpointError, ExportError, TaskError
from merging.export import export
from merging.limits import Limits
from merging.pipeline import prepare
from merging.publish import push
from merging.recipe import ModelEntry, Recipe
from merging.streamed import stream
from merging.uploads import receive_upload
from merging.zoo import ZOO_FOLDER
from tests import cases
from tests import loopback_hub as hub_module
from tests.merging.test_leftovers import aged
from tests.merging.test_uploads import classes, packed, picture
from tests.ui.server import serving
from tests.ui.test_client import form

ROOT = Path(__file__).resolve().parents[2]
PARITY = ZOO_FOLDER / "digits" / "checkpoints" / "parity"
DAY_S = 24 * 3600

# What every child begins with: `stop` says that the process has come to the place, and waits there for its end.
STOP = """
import importlib, sys, time
from pathlib import Path
def stop(*arguments, **settings):
    print("there", flush=True)
    time.sleep(600)
"""


def killed(code, *arguments, environment=None):
    """Runs code in a process of its own, which is killed without warning when it has come to `stop`."""
    command = [sys.executable, "-c", STOP + code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        try:
            assert process.stdout.readline() == "there\n", process.stderr.read()
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@contextmanager
def disk(folder, size_bytes):
    """A folder in which so much fits: a mounted disk where that is allowed, else a limit on the size of a file."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    if os.geteuid() == 0 and not subprocess.run(mount, check=False, capture_output=True).returncode:
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)
            folder.rmdir()
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        shutil.rmtree(folder)


def everything(folder):
    """The content of every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def size_of(folder):
    return sum(map(len, everything(folder).values()))


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(cases.two_tasks().to_yaml(), encoding="utf-8")
    return path


EXPORTING = """
import merging
from merging.recipe import Recipe
folder, recipe, place = sys.argv[1:]
result = merging.run(Recipe.load(recipe))
module, folders = (importlib.import_module(f"merging.{name}") for name in ("export", "folders"))
if place == "before the papers":
    module.model_card = stop
elif place == "before the first name is changed":
    folders._reach_the_disk = stop
elif place == "after the names have changed places":
    exchange = folders._exchange
    folders._exchange = lambda *paths: exchange(*paths) and stop()
else:
    folders._exchange = lambda *paths: False  # as where the system has no such step
    rename = Path.rename
    Path.rename = lambda path, target: (rename(path, target), stop())
module.export(result, folder)
"""


@pytest.mark.parametrize("place", ["before the papers", "before the first name is changed"])
def test_an_export_that_is_killed_leaves_the_earlier_one_and_the_next_is_whole(tmp_path, recipe_file, place):
    out = tmp_path / "place" / "out"
    result = merging.run(Recipe.load(recipe_file))
    export(result, out)
    (out / "scores.json").write_text("{}")  # by which the earlier one is known
    before = everything(out)
    killed(EXPORTING, out, recipe_file, place)
    assert everything(out) == before
    left = [path.name for path in out.parent.iterdir() if path != out]
    assert [name[:11] for name in left] == [".exporting-"]
    export(result, out)
    found = everything(out)
    assert found.pop("scores.json") != b"{}"
    assert found == {name: content for name, content in before.items() if name != "scores.json"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="one step for two names is Linux's")
def test_an_export_that_is_killed_when_it_has_replaced_the_earlier_one_is_whole(tmp_path, recipe_file):
    out = tmp_path / "place" / "out"
    result = merging.run(Recipe.load(recipe_file))
    export(result, out)
    whole = everything(out)
    (out / "scores.json").write_text("{}")
    killed(EXPORTING, out, recipe_file, "after the names have changed places")
    assert everything(out) == whole
    earlier = [path for path in out.parent.iterdir() if path != out]
    assert [(path / "scores.json").read_text() for path in earlier] == ["{}"]


def test_an_export_that_is_killed_between_its_two_renames_leaves_both_whole_beside_the_place(tmp_path, recipe_file):
    out = tmp_path / "place" / "out"
    result = merging.run(Recipe.load(recipe_file))
    export(result, out)
    whole = everything(out)
    killed(EXPORTING, out, recipe_file, "between the renames")
    assert not out.exists()
    left = sorted(out.parent.iterdir())
    assert [path.name.endswith("-old") for path in left] == [False, True]
    assert [everything(path) for path in left] == [whole, whole]
    export(result, out)
    assert everything(out) == whole


STREAMING = """
from merging.recipe import Recipe
from merging.streamed import stream
stream(Recipe.load(sys.argv[2]), sys.argv[1], lambda fraction, text: text.startswith("Writing") and stop())
"""


def test_a_merge_that_is_killed_while_it_writes_loses_no_fisher_and_is_done_by_the_next(
    tmp_path, recipe_file, fresh_cache
):
    out = tmp_path / "place" / "out"
    killed(STREAMING, out, recipe_file)
    assert not out.exists()
    fishers = {path: path.read_bytes() for path in fresh_cache.glob("*.safetensors")}
    assert len(fishers) == 2, "what was estimated is kept"
    found = everything(stream(Recipe.load(recipe_file), out).output)
    assert {path: path.read_bytes() for path in fishers} == fishers
    assert found == everything(stream(Recipe.load(recipe_file), tmp_path / "again").output)


PUSHING = """
from huggingface_hub import _commit_api
from merging.publish import push
upload = _commit_api.lfs_upload
_commit_api.lfs_upload = lambda **settings: (upload(**settings), stop())
push(sys.argv[1], "tester/merged", token="hf_tester")
"""


def test_a_push_that_is_killed_leaves_no_half_model_and_the_next_completes_it(hub, tmp_path):
    folder = shutil.copytree(PARITY, tmp_path / "merged")
    for name, text in (("recipe.yaml", "version: 1\n"), ("scores.json", "{}")):
        (folder / name).write_text(text)
    (folder / "README.md").write_text("---\ntags: [merge, fisher-merging]\n---\n# Merged\n")
    before = everything(folder)
    killed(PUSHING, folder, environment=hub.environment(tmp_path / "client"))
    repository = hub.repositories["model", "tester/merged"]
    assert set(everything(repository.commits[repository.refs["main"]])) == {"recipe.yaml", "README.md"}
    push(folder, "tester/merged", token="hf_tester")
    assert everything(repository.commits[repository.refs["main"]]) == before == everything(folder)


UNPACKING = """
from merging import uploads
seen, check = [], uploads.check_picture
uploads.check_picture = lambda *arguments: (check(*arguments), seen.append(1), stop() if len(seen) == 5 else None)
uploads.receive_upload(Path(sys.argv[1]))
"""


def test_an_upload_whose_unpacking_is_killed_is_unpacked_whole_by_the_next(tmp_path, fresh_cache):
    archive = packed(tmp_path / "a.zip", classes())
    killed(UNPACKING, archive)
    (half,) = (fresh_cache / "uploads").glob("*/.unpacking-*")
    assert len(everything(half)) == 5
    found = receive_upload(archive)
    assert len(everything(found)) == 12
    aged(half, DAY_S + 60)
    make_room(fresh_cache)
    assert list(found.parent.iterdir()) == [found]


SHARES = (0.0, 0.001, 0.02, 0.2, 0.4, 0.6, 0.8, 0.99, 2.0)


def attempt(work, error):
    """What the work gives and no message, or nothing and the message of the error."""
    try:
        return work(), ""
    except error as problem:
        return None, str(problem)


def test_an_export_is_whole_or_not_there_wherever_the_disk_fills_up(tmp_path, four_result):
    whole = everything(export(four_result, tmp_path / "whole"))
    messages = set()
    for share in SHARES:
        with disk(tmp_path / "disk", 4096 + int(share * size_of(tmp_path / "whole"))) as place:
            out, message = attempt(lambda place=place: export(four_result, place / "out"), ExportError)
            messages.add("expected a folder with free space" in message)
            assert everything(out) == whole if out else list(place.iterdir()) == []
            assert bool(out) != bool(message)
    assert messages == {True, False}


def test_a_merge_from_file_to_file_is_whole_or_not_there_wherever_the_disk_fills_up(tmp_path, monkeypatch):
    recipe = cases.two_tasks()
    whole = everything(stream(recipe, tmp_path / "whole").output)
    monkeypatch.setattr("merging.streamed.require_space", lambda folder, size_bytes: None)  # others fill it meanwhile
    messages = set()
    for share in SHARES:
        with disk(tmp_path / "disk", 4096 + int(share * size_of(tmp_path / "whole"))) as place:
            done, message = attempt(lambda place=place: stream(recipe, place / "out"), ExportError)
            messages.add("expected a folder with free space" in message)
            assert everything(done.output) == whole if done else list(place.iterdir()) == []
    assert messages == {True, False}


def test_a_downloads_zip_is_whole_or_not_there_wherever_the_disk_fills_up(tmp_path, four_result, monkeypatch):
    whole = size_of(export(four_result, tmp_path / "whole"))
    messages = set()
    for share in (0.001, 0.5, 0.99, 1.2, 1.5, 2.5):  # of the folder; then its zip is written beside it
        with disk(tmp_path / "disk", 4096 + int(share * whole)) as place:
            folders = VisitFolders(place / "visits")
            monkeypatch.setattr(export_panel, "FOLDERS", folders)
            archive, message = attempt(lambda: export_panel._zipped(four_result), ExportError)
            messages.add("free space" in message)
            if archive:
                with zipfile.ZipFile(archive) as packed_again:
                    assert packed_again.testzip() is None
            assert len(everything(place)) == bool(archive)
            folders.close()
    assert messages == {True, False}


def test_an_estimate_leaves_only_whole_files_wherever_the_disk_under_the_cache_fills_up(tmp_path, monkeypatch):
    messages = set()
    for size_bytes in (4096, 40_000, 600_000, 1_500_000, 2_500_000, 10_000_000):
        with disk(tmp_path / "disk", size_bytes) as place:
            monkeypatch.setenv("FISHER_CACHE_DIR", str(place))
            _, message = attempt(lambda: prepare(cases.two_tasks()), CacheError)
            messages.add("expected a folder with free space" in message)
            for path in place.iterdir():
                with safe_open(path, framework="pt") as file:
                    assert all(file.get_tensor(name).isfinite().all() for name in file.keys())  # noqa: SIM118
    assert messages == {True, False}


def test_a_zip_is_unpacked_whole_or_not_at_all_wherever_the_disk_fills_up(tmp_path, monkeypatch):
    archive = packed(tmp_path / "a.zip", {f"cat/{number}.png": picture(number, size=64) for number in range(20)})
    monkeypatch.setattr("merging.uploads._check_disk", lambda name, folder, needed: None)  # others fill it meanwhile
    messages = set()
    for size_bytes in (4096, 50_000, 150_000, 200_000, 1_000_000):
        with disk(tmp_path / "disk", size_bytes) as place:
            found, message = attempt(lambda place=place: receive_upload(archive, place / "into"), TaskError)
            messages.add("and room on the disk, got" in message)
            assert len(everything(place)) == (20 if found else 0)
    assert messages == {True, False}


def test_a_full_disk_under_the_rows_that_datasets_keeps_is_told(tmp_path, recipe_file):
    with disk(tmp_path / "disk", 50_000) as place:
        own = {"HF_DATASETS_CACHE": str(place), "FISHER_CACHE_DIR": str(tmp_path / "fishers")}
        command = [sys.executable, "-m", "merging", "evaluate", str(recipe_file)]
        full = subprocess.run(command, cwd=ROOT, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert full.returncode == 2, full.stderr
    assert "No space left on device" in full.stderr or "File too large" in full.stderr
    assert "HF_DATASETS_CACHE" in full.stderr
    assert "Mend the file" not in full.stderr
    assert "Traceback" not in full.stderr


def test_a_page_whose_cache_disk_is_full_says_so_and_still_answers(tmp_path):
    with disk(tmp_path / "disk", 60_000) as place:
        if not place.is_mount():
            pytest.skip("needs the right to mount: a limit on files would be one on all files of the page")
        with serving(tmp_path / "page", FISHER_CACHE_DIR=str(place / "fishers")) as server:
            client = Client(server.url, verbose=False)
            job_id = next(one for one in client.predict(*form(), api_name="/estimate_fisher") if len(str(one)) == 32)
            deadline, told = time.monotonic() + 120, ""
            while "The Fisher cache cannot be written" not in told:
                assert time.monotonic() < deadline, told
                told = str(client.predict(job_id, api_name="/progress"))
            assert "Traceback" not in told
            with urllib.request.urlopen(f"{server.url}health", timeout=30) as answer:
                assert json.load(answer)["status"] == "ok"
            server.require_alive()
            assert not list(place.rglob("*.safetensors"))


def test_a_bit_turned_among_the_numbers_makes_another_checkpoint(tmp_path):
    """Nothing in the file tells such a number from a sound one, but no Fisher of the sound one is taken for it."""
    sound = open_checkpoint(str(PARITY)).hash
    for number, bit in enumerate((0, 12, 22, 30, 31)):
        folder = shutil.copytree(PARITY, tmp_path / str(number))
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-400 + bit // 8] ^= 1 << bit % 8
        (folder / "model.safetensors").write_bytes(content)
        assert open_checkpoint(str(folder)).hash != sound


def test_a_kept_fisher_with_a_bit_turned_is_estimated_anew(fresh_cache):
    recipe = cases.two_tasks()
    expected = merging.run(recipe).scores
    path = next(fresh_cache.glob("*.safetensors"))
    sound, generator = path.read_bytes(), torch.Generator().manual_seed(0)
    sign, anywhere = 8 * len(sound) - 1, torch.randint(8 * len(sound), (10,), generator=generator).tolist()
    for place in (30, 8 * 20, *anywhere, sign - 1, sign):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        assert merging.run(recipe).scores == expected
        assert path.read_bytes() != content or place < 8 * 4000, "numbers are looked at"


LIES = {
    "less than comes": ("X-Linked-Size", lambda size: 10),
    "more than comes": ("X-Linked-Size", lambda size: 3 * size),
    "less than announced": ("Content-Length", lambda size: size // 2),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_download_of_another_size_than_the_hub_says_leaves_nothing(hub, tmp_path, monkeypatch, lie):
    hub.add("lab/parity", PARITY)
    header, said = LIES[lie]
    honest = hub_module._Handler.send_header

    def send_header(self, key, value):
        if key == header and self.path.endswith("model.safetensors"):
            self.close_connection = self.close_connection or key == "Content-Length"
            value = str(said(int(value)))
        honest(self, key, value)

    with monkeypatch.context() as lying:
        lying.setattr(hub_module._Handler, "send_header", send_header)
        # What comes after the announced end may be taken for the head of the next answer before the connection is closed.
        got = "cannot be had: expected .*, got (Consistency check failed|illegal status line)"
        with pytest.raises(CheckpointError, match=got):
            open_checkpoint("lab/parity")
        assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert open_checkpoint("lab/parity").hash == open_checkpoint(str(PARITY)).hash


def test_a_listing_whose_sizes_are_no_numbers_is_refused(hub, monkeypatch):
    hub.add("lab/parity", PARITY)
    honest = hub_module.described
    monkeypatch.setattr(hub_module, "described", lambda path: honest(path) | {"size": "much"})
    with pytest.raises(CheckpointError, match=r'"lab/parity" cannot be read: expected the sizes .*, got \'much\' for '):
        open_checkpoint("lab/parity")


@pytest.mark.parametrize("said", [0, 10, -5])
def test_a_listing_that_lies_of_sizes_passes_no_limit_and_changes_no_weights(hub, monkeypatch, said):
    hub.add("lab/parity", PARITY)
    honest = hub_module.described

    def lying(path):
        about = honest(path)
        if path.name == "model.safetensors":
            about |= {"size": said, "lfs": {**about["lfs"], "size": said}}
        return about

    monkeypatch.setattr(hub_module, "described", lying)
    recipe = cases.two_tasks()
    entry = ModelEntry("lab/parity", recipe.models[0].task)
    limits = Limits(parameters=1000, dataset_bytes=10**9, memory_bytes=10**12)
    with pytest.raises(CheckpointError, match=r'"lab/parity" is too large for this page'):
        prepare(Recipe((entry, recipe.models[1])), limits=limits)
    assert None not in hub.downloads("model.safetensors"), "but for its header"
    assert open_checkpoint("lab/parity").hash == open_checkpoint(str(PARITY)).hash
