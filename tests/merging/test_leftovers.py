"""What killed processes leave is told from what is in use, whatever the clock says."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from merging.leftovers import changed_s, held, held_folder, is_held, is_leftover, remove

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from pathlib import Path
from merging.leftovers import held_folder
with held_folder(Path(sys.argv[1]), ".writing-") as folder:
    (folder / "half").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""
YEAR_S = 365 * 24 * 3600


@contextmanager
def another_process(parent):
    """A process that holds a folder below `parent`; yields both."""
    command = [sys.executable, "-c", HOLDER, str(parent)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def aged(path, seconds):
    """As if it had last changed so many seconds ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_what_a_living_process_holds_is_no_leftover_however_the_clock_jumps(tmp_path):
    with another_process(tmp_path) as (process, folder):
        for jump in (YEAR_S, -YEAR_S, YEAR_S):
            aged(folder, jump)
            assert not is_leftover(folder, 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        aged(folder, YEAR_S)
        assert is_leftover(folder, 60), "the lock has ended with its process"
        assert remove(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_this_process_holds_is_held_until_it_lets_go(tmp_path):
    with held_folder(tmp_path, ".writing-") as folder:
        assert is_held(folder)
        assert not is_leftover(aged(folder, YEAR_S), 60)
    assert not folder.exists()
    assert not is_held(folder)


def test_a_time_in_the_future_begins_anew(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    aged(path, -YEAR_S)
    assert not is_leftover(path, 60)
    assert abs(path.stat().st_mtime - time.time()) < 60
    assert is_leftover(aged(path, 61), 60)
    assert not is_leftover(aged(path, 30), 60)


def test_what_is_gone_is_neither_held_nor_left(tmp_path):
    assert not is_held(tmp_path / "gone")
    assert not is_leftover(tmp_path / "gone", 0)
    assert changed_s(tmp_path / "gone") is None
    assert remove(tmp_path / "gone")


def test_a_link_is_no_leftover_and_what_it_leads_to_keeps_its_time(tmp_path):
    outside = aged(tmp_path, 2 * YEAR_S) / "outside"
    outside.mkdir()
    (tmp_path / "link").symlink_to(outside)
    aged(outside, -YEAR_S)
    before = outside.stat().st_mtime
    assert not is_leftover(tmp_path / "link", -YEAR_S)
    assert outside.stat().st_mtime == before


@pytest.mark.parametrize("name", ["folder", ".writing-abc"])
def test_a_folder_goes_with_all_that_is_in_it_but_not_with_what_its_links_lead_to(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    folder = tmp_path / name
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("gone")
    (folder / "link").symlink_to(outside)
    (folder / "inner" / "link").symlink_to(outside / "kept")
    assert remove(folder)
    assert list(tmp_path.iterdir()) == [outside]
    assert (outside / "kept").read_text() == "kept"


def test_a_link_is_removed_and_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    assert remove(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


def test_holding_something_that_is_not_there_holds_nothing(tmp_path):
    with held(tmp_path / "gone"):
        assert not is_held(tmp_path / "gone")
