"""A visit's files: in a folder that nobody can guess, deleted when its time is over, and never anything else."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from components import export_panel, logs, visit_folders
from components.visit_folders import VisitFolders
from merging.errors import ExportError

ROOT = Path(__file__).resolve().parents[2]
KEPT_S = 3600.0
ONE, TWO = "1" * 32, "2" * 32
SERVER = """
import sys
from pathlib import Path
from components.visit_folders import VisitFolders
folders = VisitFolders(Path(sys.argv[1]))
with folders.new("1" * 32, "export") as folder:
    (folder / "merged-model.zip").write_bytes(b"zip")
print(folder, flush=True)
sys.stdin.read()
"""


@contextmanager
def another_server(root):
    """A server of its own with one visit's export; yields it and the export's folder. Its end is an orderly one."""
    command = [sys.executable, "-c", SERVER, str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
            process.stdin.close()
            process.wait(timeout=60)
        finally:
            process.kill()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def aged(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "visits"


@pytest.fixture
def folders(root):
    made = VisitFolders(root, kept_s=KEPT_S)
    yield made
    made.close()


@pytest.fixture
def hurried(root):
    """Folders whose time is over at once."""
    made = VisitFolders(root, kept_s=-1)
    yield made
    made.close()


def test_a_visit_has_one_folder_that_says_nothing_of_it_and_is_closed_to_others(folders, root):
    first, second = folders.of(ONE), folders.of(TWO)
    assert folders.of(ONE) == first != second
    assert first.is_relative_to(root)
    assert ONE not in str(first)
    assert [path.stat().st_mode & 0o077 for path in (first, first.parent, root)] == [0, 0, 0]


def test_two_servers_give_the_same_visit_different_names(folders, root):
    other = VisitFolders(root)
    assert other.of(ONE).name != folders.of(ONE).name
    other.close()
    assert folders.of(ONE).is_dir()


def test_without_a_visit_every_use_has_a_folder_of_its_own(folders):
    assert folders.of(None) != folders.of(None)


def test_each_export_has_a_folder_of_its_own_and_the_newest_are_kept(folders):
    made = []
    for number in range(visit_folders.KEPT_EACH + 2):
        with folders.new(ONE, "export") as folder:
            (folder / "file").write_text(str(number))
        aged(folder, 60 - number)
        made.append(folder)
    with folders.new(ONE, "recipe"):
        pass
    assert [folder.exists() for folder in made] == [False] * 2 + [True] * visit_folders.KEPT_EACH
    assert len({folder.parent for folder in made}) == 1


def test_an_export_that_fails_leaves_nothing(folders):

    def fail():
        with folders.new(ONE, "export") as folder:
            (folder / "half").write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert list(folders.of(ONE).iterdir()) == []


def test_what_is_used_stays_and_what_is_over_goes(folders):
    used, over = folders.of(ONE), folders.of(TWO)
    (over / "file").write_text("over")
    folders._used_s[over] -= KEPT_S + 1
    assert folders.sweep() == 1
    assert used.is_dir()
    assert not over.exists()
    again = folders.of(TWO)
    assert again != over
    assert list(again.iterdir()) == []


def test_a_use_begins_the_time_anew(folders):
    folder = folders.of(ONE)
    folders._used_s[folder] -= KEPT_S + 1
    assert folders.of(ONE) == folder
    assert folders.sweep() == 0
    assert folder.is_dir()


def test_a_clock_that_jumps_deletes_nothing_that_a_living_server_keeps(folders, root):
    folder = folders.of(ONE)
    with another_server(root) as (_, other):
        for jump in (365 * 24 * 3600, -365 * 24 * 3600):
            for path in (folder, folder.parent, other, other.parent, other.parent.parent):
                aged(path, jump)
            assert folders.sweep() == 0
        assert folder.is_dir()
        assert (other / "merged-model.zip").is_file()


def test_what_is_being_written_stays_however_long_it_takes(hurried):
    with hurried.new(ONE, "export") as folder:
        assert hurried.sweep() == 0
        assert folder.is_dir()
    assert hurried.sweep() == 1
    assert not folder.parent.exists()


def test_a_restarted_server_deletes_what_a_killed_one_left_once_its_time_is_over(folders, root):
    with another_server(root) as (process, left):
        kill(process)
        assert folders.sweep() == 0, "its page may still be open, and ask for it"
        assert (left / "merged-model.zip").is_file()
        aged(left.parent, -KEPT_S)
        assert folders.sweep() == 0, "a time in the future begins anew"
        aged(left.parent, KEPT_S + 60)
        assert folders.sweep() == 1
        assert not left.parent.exists()
        aged(left.parent.parent, KEPT_S + 60)
        folders.sweep()
    assert [path for path in root.iterdir() if path.name.startswith("server-")] in ([], [folders.of(ONE).parent])


def test_a_server_that_ends_in_order_leaves_nothing(root):
    with another_server(root) as (_, left):
        assert left.is_dir()
    assert list(root.iterdir()) == []


def test_a_sweep_deletes_so_many_and_the_next_one_goes_on(hurried, monkeypatch):
    monkeypatch.setattr(visit_folders, "AT_ONCE", 2)
    monkeypatch.setattr(visit_folders, "SWEEP_S", float("inf"))
    made = [hurried.of(f"{number:032x}") for number in range(5)]
    assert [hurried.sweep() for _ in range(4)] == [2, 2, 1, 0]
    assert not any(folder.exists() for folder in made)


def test_the_thread_sweeps_without_being_asked(hurried):
    folder = hurried.of(ONE)
    hurried.begin(every_s=0.05)
    for _ in range(200):
        if not folder.exists():
            return
        time.sleep(0.05)
    pytest.fail("nothing was swept in ten seconds")


def test_links_are_neither_followed_nor_swept(hurried, root, tmp_path):
    outside = tmp_path / "outside"
    (outside / ("a" * 32)).mkdir(parents=True)
    (outside / ("a" * 32) / "kept").write_text("kept")
    inside = hurried.of(ONE)
    (inside / "link").symlink_to(outside)
    dead = root / "server-0123456789abcdef"
    dead.mkdir()
    (dead / ("b" * 32)).symlink_to(outside)
    (root / "server-fedcba9876543210").symlink_to(outside)
    (root / ".evicted-abc").symlink_to(outside)
    (root / "mine").mkdir()
    (dead / "mine").mkdir()
    for path in (outside, outside / ("a" * 32), dead, root / "mine", dead / "mine"):
        aged(path, 10 * KEPT_S)
    assert hurried.sweep() == 1
    assert not inside.exists()
    hurried.sweep()
    hurried.close()
    assert (outside / ("a" * 32) / "kept").read_text() == "kept"
    assert (root / "mine").is_dir()
    assert (dead / "mine").is_dir()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_root_that_is_not_ones_own_folder_is_not_used(tmp_path, kind):
    outside, root = tmp_path / "outside", tmp_path / "visits"
    outside.mkdir()
    root.symlink_to(outside) if kind == "link" else root.write_text("in the way")
    folders = VisitFolders(root)
    folder = folders.of(ONE)
    assert folder.is_dir()
    assert not folder.resolve().is_relative_to(tmp_path)
    assert list(outside.iterdir()) == []
    folders.close()
    folder.parent.parent.rmdir()


def test_a_folder_that_something_else_deleted_is_made_again(folders, root):
    first = folders.of(ONE)
    first.rmdir()
    second = folders.of(ONE)
    assert second.is_dir()
    second.rmdir()
    second.parent.rmdir()
    assert folders.of(ONE).is_dir()


def test_many_threads_of_one_visit_share_its_folder(folders):
    found, barrier = [], threading.Barrier(8)

    def use():
        barrier.wait()
        for _ in range(20):
            found.append(folders.of(ONE))
            folders.sweep()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 160
    assert len(set(found)) == 1


def test_an_exported_zip_lies_in_the_visits_folder_and_nothing_beside_it(four_result, folders, monkeypatch, caplog):
    monkeypatch.setattr(export_panel, "FOLDERS", folders)
    with caplog.at_level("INFO", logs.STUDIO):
        archive = Path(export_panel._zipped(four_result))
    told = next(record for record in caplog.records if record.getMessage() == "exported").fields
    assert told["bytes"] == archive.stat().st_size
    assert str(archive.parent) not in str(told)
    assert archive.name == "merged-model.zip"
    assert archive.parent.parent.parent == folders.of(ONE).parent
    assert [path.name for path in archive.parent.iterdir()] == ["merged-model.zip"]


def test_an_export_without_a_place_to_write_is_told(four_result, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(export_panel, "FOLDERS", VisitFolders(tmp_path / "file" / "visits"))
    with pytest.raises(ExportError, match="expected a temporary folder with free space"):
        export_panel._zipped(four_result)


def test_what_is_in_use_is_kept_and_nothing_is_made_for_those_who_have_nothing(root):
    folders = VisitFolders(root, kept_s=0.5)
    kept, left = folders.of(ONE), folders.of(TWO)
    for _ in range(8):
        time.sleep(0.1)
        folders.used(ONE)
        folders.used("3" * 32)
    folders.sweep()
    assert kept.is_dir()
    assert not left.exists()
    assert [path for path in kept.parent.iterdir() if path.is_dir()] == [kept]
