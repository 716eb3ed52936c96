"""The cache keeps to its limit: whole entries go, the least recently used first, and nothing that is in use."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from merging import cache, cache_space
from merging.cache import FisherKey
from merging.cache_space import limit_bytes, make_room
from merging.errors import CacheError, FisherError
from merging.fisher import Fisher
from merging.streamed import stream
from tests import cases
from tests.merging.test_full_disk import small_disk
from tests.merging.test_leftovers import aged, another_process

ROOT = Path(__file__).resolve().parents[2]
HOUR_S, DAY_S = 3600, 24 * 3600
KEYS = [FisherKey("c" * 64, "t" * 64, "fisher", 16, "exact", seed, "cpu") for seed in range(5)]
SIZE = 40_000  # bytes of a Fisher's numbers


def fisher(value):
    """A Fisher whose numbers are all `value`."""
    return Fisher({"weight": torch.full((SIZE // 4,), float(value))}, 16)


def write(index, *, used_before_s=0.0):
    path = cache.entry_path(KEYS[index])
    cache.write_atomically(path, fisher(index).save)
    return aged(path, used_before_s) if used_before_s else path


def found():
    """Which of the Fishers can be read, without reading them."""
    return [index for index, key in enumerate(KEYS) if cache.entry_path(key).is_file()]


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10**10), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("4096", 4096), ("0", 0), ("2 TB", 2 * 10**12)],
)
def test_a_limit_is_a_size(monkeypatch, text, size):
    monkeypatch.setenv("FISHER_CACHE_LIMIT", text)
    assert limit_bytes() == size


def test_the_limit_has_a_default(monkeypatch):
    for text in ("", "  "):
        monkeypatch.setenv("FISHER_CACHE_LIMIT", text)
        assert limit_bytes() == 10**10
    monkeypatch.delenv("FISHER_CACHE_LIMIT")
    assert limit_bytes() == 10**10


@pytest.mark.parametrize("text", ["much", "-1", "10 XB", "1e9", "nan", "1..5GB", "GB", "٣GB", "9" * 40])
def test_a_limit_that_is_no_size_is_told_before_the_estimate(monkeypatch, fresh_cache, text):
    monkeypatch.setenv("FISHER_CACHE_LIMIT", text)
    with pytest.raises(CacheError, match=r'FISHER_CACHE_LIMIT cannot be read: expected a size such as "10GB"'):
        cache.require_writable()


def test_the_least_recently_used_go_first_and_reading_is_a_use(fresh_cache, monkeypatch):
    for index in range(4):
        write(index, used_before_s=HOUR_S * (10 - index))
    assert cache.read_fisher(KEYS[0], Fisher.load) is not None
    monkeypatch.setenv("FISHER_CACHE_LIMIT", str(3 * (SIZE + 1000)))
    write(4)
    assert found() == [0, 3, 4]


def test_the_entry_just_written_stays_though_it_is_over_the_limit_alone(fresh_cache, monkeypatch):
    write(0)
    monkeypatch.setenv("FISHER_CACHE_LIMIT", "1 kB")
    write(1)
    assert found() == [1]
    assert cache.read_fisher(KEYS[1], Fisher.load)["weight"][0] == 1


def test_below_the_limit_nothing_goes_however_old(fresh_cache):
    write(0, used_before_s=400 * DAY_S)
    write(1)
    assert found() == [0, 1]


def test_kept_pictures_count_and_go_too(fresh_cache, monkeypatch):
    picture = fresh_cache / f"picture-{'a' * 40}.json"
    cache.write_atomically(picture, lambda path: path.write_text("x" * SIZE))
    aged(picture, HOUR_S)
    monkeypatch.setenv("FISHER_CACHE_LIMIT", str(2 * SIZE))
    write(0)
    assert found() == [0]
    assert not picture.exists()


def test_nothing_else_in_the_folder_is_ever_deleted(fresh_cache, monkeypatch, tmp_path):
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"0" * SIZE)
    names = ["model.safetensors", "picture.json", "notes.state", ".writing", f"{'g' * 40}.safetensors", "jobs-1.json"]
    for name in names:
        fresh_cache.mkdir(exist_ok=True)
        aged(_filled(fresh_cache / name), 400 * DAY_S)
    for name in ("photos", "uploads/mine", "adapters/mine"):
        (fresh_cache / name).mkdir(parents=True)
        aged(_filled(fresh_cache / name / "file"), 400 * DAY_S)
        aged(fresh_cache / name, 400 * DAY_S)
    link = fresh_cache / f"{'b' * 40}.safetensors"
    link.symlink_to(outside)
    (fresh_cache / "uploads" / ("c" * 16)).symlink_to(tmp_path)
    before = sorted(fresh_cache.rglob("*"))
    monkeypatch.setenv("FISHER_CACHE_LIMIT", "0")
    make_room(fresh_cache)
    assert sorted(fresh_cache.rglob("*")) == before
    assert outside.read_bytes() == b"0" * SIZE


def test_what_a_killed_process_left_goes_after_a_day_and_what_is_in_use_stays(fresh_cache):
    write(0)
    for number, name in enumerate((".writing-a", ".probe-b", ".estimating-c", "uploads/" + "d" * 16 + "/.unpacking-e")):
        path = fresh_cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            path.write_bytes(b"half")
        else:
            path.mkdir()
            (path / "half").write_bytes(b"half")
        aged(path, DAY_S + 60)
    young = _filled(fresh_cache / ".writing-young")
    with another_process(fresh_cache) as (_, held):
        aged(held, DAY_S + 60)
        cache.require_writable()
        assert (held / "half").is_file()
    assert {path.name for path in fresh_cache.iterdir()} - {held.name, "uploads"} == {
        young.name,
        cache.entry_path(KEYS[0]).name,
    }
    assert list((fresh_cache / "uploads").iterdir()) == []


def test_an_unfinished_estimate_goes_after_a_week_unless_it_is_being_worked_on(fresh_cache):
    fresh_cache.mkdir()
    states = [_filled(cache.state_path(key)) for key in KEYS[:3]]
    for state, age in zip(states, (8 * DAY_S, 6 * DAY_S, 8 * DAY_S), strict=True):
        aged(state, age)
    with cache.estimating(KEYS[2]) as state:
        assert state == states[2]
        make_room(fresh_cache)
        assert [path.exists() for path in states] == [False, True, True]
    make_room(fresh_cache)
    assert [path.exists() for path in states] == [False, True, False]


def test_unfinished_estimates_count_and_make_room_unless_they_are_being_worked_on(fresh_cache, monkeypatch):
    fresh_cache.mkdir()
    states = [aged(_filled(cache.state_path(key)), HOUR_S) for key in KEYS[:2]]
    monkeypatch.setenv("FISHER_CACHE_LIMIT", str(SIZE))
    with cache.estimating(KEYS[0]):
        write(2)
    assert [path.exists() for path in states] == [True, False]


def test_a_clock_that_was_set_back_keeps_no_entry_for_ever_and_deletes_none_too_early(fresh_cache, monkeypatch):
    for index in range(3):
        write(index, used_before_s=(-400 * DAY_S, HOUR_S, -DAY_S)[index])
    temporary = aged(_filled(fresh_cache / ".writing-x"), -400 * DAY_S)
    state = aged(_filled(cache.state_path(KEYS[4])), -400 * DAY_S)
    make_room(fresh_cache)
    assert found() == [0, 1, 2]
    now = time.time()
    for path in (cache.entry_path(KEYS[0]), cache.entry_path(KEYS[2]), temporary, state):
        assert abs(path.stat().st_mtime - now) < 60, "it ages from now on"
    monkeypatch.setenv("FISHER_CACHE_LIMIT", str(5 * SIZE + 3000))
    write(3)
    assert found() == [0, 2, 3], "the one whose use is known to be an hour ago went first"


def test_a_clock_that_was_set_forward_deletes_nothing_in_use(fresh_cache):
    fresh_cache.mkdir()
    with another_process(fresh_cache) as (_, held), cache.estimating(KEYS[1]) as state:
        write(0)
        _filled(state)
        for path in [*fresh_cache.iterdir(), held]:
            aged(path, 10 * 365 * DAY_S)
        make_room(fresh_cache)
        assert held.is_dir()
        assert state.is_file()
        assert found() == [0]


def test_a_folder_of_files_goes_whole_once_nobody_reads_it_any_more(fresh_cache, monkeypatch):
    folders = {}
    for name, age in (("uploads/" + "a" * 16, DAY_S), ("uploads/" + "b" * 16, 60), ("adapters/" + "c" * 40, DAY_S)):
        folders[name[-1]] = fresh_cache / name
        _filled(fresh_cache / name / "inner" / "file")
        aged(fresh_cache / name, age)
    monkeypatch.setenv("FISHER_CACHE_LIMIT", "1")
    make_room(fresh_cache)
    left = {path.relative_to(fresh_cache).as_posix() for path in fresh_cache.rglob("*") if path.is_file()}
    assert left == {"uploads/" + "b" * 16 + "/inner/file"}
    assert sorted(path.name for path in fresh_cache.rglob(".*")) == []


def test_an_entry_that_another_process_reads_meanwhile_stays(fresh_cache):
    path = write(0, used_before_s=HOUR_S)
    listed = cache_space.Entry(path, SIZE, path.stat().st_mtime)
    assert not cache_space._is_in_use(listed)
    assert cache.read_fisher(KEYS[0], Fisher.load) is not None
    assert cache_space._is_in_use(listed)


def test_a_file_that_vanishes_while_it_is_read_counts_as_none(fresh_cache):
    path = write(0)

    def load(path):
        path.unlink()
        return Fisher.load(path)

    assert cache.read_fisher(KEYS[0], load) is None
    assert not path.exists()


def test_a_file_that_is_written_anew_while_a_damaged_one_is_read_stays(fresh_cache):
    path = write(0)
    path.write_bytes(b"damaged")

    def load(damaged):
        try:
            return Fisher.load(damaged)
        finally:
            write(0)

    assert cache.read_fisher(KEYS[0], load) is None
    assert cache.read_fisher(KEYS[0], Fisher.load)["weight"][0] == 0


def test_a_file_that_cannot_be_read_at_the_moment_is_not_deleted(fresh_cache):
    path = write(0)

    def load(path):
        raise FisherError("not now") from OSError(24, "Too many open files")

    assert cache.read_fisher(KEYS[0], load) is None
    assert path.is_file()


def test_on_a_full_disk_the_earlier_entries_stay_and_nothing_half_written_is_left(tmp_path, monkeypatch):
    folder = tmp_path / "disk"
    monkeypatch.setenv("FISHER_CACHE_DIR", str(folder))
    with small_disk(folder):
        write(0)
        with pytest.raises(CacheError, match="expected a folder with free space"):
            cache.write_atomically(
                cache.entry_path(KEYS[1]),
                lambda path: (path.write_bytes(b"0" * 30_000), path.write_bytes(b"0" * 10**6)),
            )
        assert [path.name for path in folder.iterdir()] == [cache.entry_path(KEYS[0]).name]
        assert cache.read_fisher(KEYS[0], Fisher.load)["weight"][0] == 0


def test_a_merge_from_file_to_file_keeps_its_fishers_though_they_are_over_the_limit(fresh_cache, monkeypatch, tmp_path):
    recipe = cases.two_tasks()
    expected = stream(recipe, tmp_path / "expected").output / "model.safetensors"
    for path in fresh_cache.iterdir():
        path.unlink()
    monkeypatch.setenv("FISHER_CACHE_LIMIT", "1")
    found = stream(recipe, tmp_path / "found").output / "model.safetensors"
    assert found.read_bytes() == expected.read_bytes()
    make_room(fresh_cache)
    assert list(fresh_cache.iterdir()) == [], "nobody holds them any more"


KILLED = """
import sys, time
from merging import cache
from tests.merging.test_cache_space import KEYS, fisher
def write(path):
    fisher(1).save(path)
    print("written", flush=True)
    time.sleep(600)
cache.write_atomically(cache.entry_path(KEYS[0]), write)
"""


def test_a_write_that_is_killed_leaves_the_earlier_entry_and_goes_after_a_day(fresh_cache):
    path = write(0)
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "written\n"
            (half,) = set(fresh_cache.iterdir()) - {path}
            aged(half, 2 * DAY_S)
            make_room(fresh_cache)
            assert list(half.iterdir()), "it is being written"
        finally:
            process.kill()
    aged(half, HOUR_S)
    make_room(fresh_cache)
    assert half.is_dir()
    assert cache.read_fisher(KEYS[0], Fisher.load)["weight"][0] == 0
    aged(half, DAY_S + 60)
    make_room(fresh_cache)
    assert list(fresh_cache.iterdir()) == [path]


WORKER = """
import sys
from merging import cache
from merging.fisher import Fisher
from tests.merging.test_cache_space import KEYS, fisher
worker, missing = int(sys.argv[1]), 0
print("ready", flush=True)
sys.stdin.readline()
for turn in range(60):
    index = (turn * (worker + 2) + worker) % len(KEYS)
    cache.require_writable()
    found = cache.read_fisher(KEYS[index], Fisher.load)
    if found is None:
        missing += 1
        with cache.estimating(KEYS[index]) as state:
            cache.write_atomically(state, lambda path: path.write_bytes(b"half"))
            cache.write_atomically(cache.entry_path(KEYS[index]), fisher(index).save)
            state.unlink(missing_ok=True)
    else:
        assert (found["weight"] == index).all(), "another one's numbers"
print(missing)
"""


def test_two_processes_share_a_folder_that_holds_less_than_they_want(fresh_cache, monkeypatch):
    limit = 3 * (SIZE + 1000)
    monkeypatch.setenv("FISHER_CACHE_LIMIT", str(limit))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 2
        with ThreadPoolExecutor(2) as threads:
            outputs = list(threads.map(lambda worker: worker.communicate("go\n", timeout=120), workers))
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert all(int(out) > 3 for out, _ in outputs), "entries were evicted and written anew"
    left = list(fresh_cache.iterdir())
    assert all(cache_space.is_entry(path) for path in left), "nothing half written is left"
    make_room(fresh_cache)
    assert sum(path.stat().st_size for path in fresh_cache.iterdir()) <= limit
    assert found()


def test_a_cache_that_may_only_be_read_is_read(fresh_cache, monkeypatch):
    path = write(0)

    def refuse(*arguments, **named):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.read_fisher(KEYS[0], Fisher.load)["weight"][0] == 0
    assert path.is_file()


def _filled(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0" * SIZE)
    return path
