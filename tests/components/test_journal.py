"""Which jobs were lost with a server: told after a restart, whatever happened to the file."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components import journal as module
from components.job_panel import watched
from components.jobs import ESTIMATE, Registry
from components.journal import Journal

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys, time
from pathlib import Path
from components.journal import Journal
journal = Journal()
print(journal.open(Path(sys.argv[1])), flush=True)
for job_id in sys.argv[2:]:
    journal.add(job_id, "estimate of Fishers")
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture
def opened(tmp_path):
    """Makes journals in one folder, as many as servers have lived there; `die` lets go of one as a death does."""
    made = []

    def make() -> Journal:
        made.append(Journal())
        made[-1].open(tmp_path)
        return made[-1]

    yield make
    for journal in made:
        die(journal)


def die(journal: Journal) -> None:
    """What the kernel does for a process that is no more."""
    if journal._held is not None:
        journal._held.release()


def files(folder: Path) -> list[Path]:
    """The journals in a folder."""
    return sorted(folder.glob("jobs-*.json"))


def test_a_killed_process_leaves_its_jobs_to_the_next_one(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path), "a" * 32, "b" * 32]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "0\n"
        assert child.stdout.readline() == "written\n"
        beside = Journal()
        assert beside.open(tmp_path) == 0, "a living process has lost nothing"
        child.send_signal(signal.SIGKILL)
    after = Journal()
    assert after.open(tmp_path) == 2
    assert after.lost("a" * 32) == after.lost("b" * 32) == "estimate of Fishers"
    assert after.lost("c" * 32) is None
    assert beside.lost("a" * 32) is None
    assert len(files(tmp_path)) == 2, "the dead one's file is gone"
    die(beside)
    die(after)


def test_a_process_that_lives_on_for_a_while_is_heard_of_later(opened, monkeypatch):
    first, second = opened(), opened()
    first.add("a", "work")
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)
    assert second.lost("a") is None
    die(first)
    assert second.lost("a") == "work"


def test_ids_are_not_in_the_file(opened, tmp_path):
    opened().add("secret-id", "work")
    (path,) = files(tmp_path)
    assert "work" in path.read_text(encoding="utf-8")
    assert "secret-id" not in path.read_text(encoding="utf-8")


def test_what_ended_is_not_lost_and_what_was_lost_stays_so_over_restarts(opened):
    first = opened()
    for job_id in ("ended", "going"):
        first.add(job_id, "work")
    first.remove(["ended"])
    die(first)
    second = opened()
    assert (second.lost("ended"), second.lost("going")) == (None, "work")
    die(second)
    assert opened().lost("going") == "work"


def test_lost_jobs_expire_and_are_bounded(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT_LOST", 3)
    first = opened()
    for number in range(5):
        first.add(str(number), "work")
    die(first)
    second = opened()
    assert [second.lost(str(number)) is not None for number in range(5)] == [False, False, True, True, True]
    die(second)
    (path,) = files(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    for entry, seconds in zip(content["lost"].values(), (-2, +2, 0), strict=True):
        entry["at"] += seconds * module.KEPT_LOST_S  # a clock that jumped, either way
    path.write_text(json.dumps(content), encoding="utf-8")
    third = opened()
    assert [third.lost(str(number)) is not None for number in (2, 3, 4)] == [False, False, True]


GOOD = '{"kind": "work", "at": 1}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"\xff\xfe{",
        b"null",
        b"[]",
        b'{"active": 7, "lost": {}}',
        b'{"active": {}}',
        b'{"active": {"a": 7, "b": {"kind": 1, "at": 1}, "c": {"kind": "x", "at": "y"}, "d": {}}, "lost": {}}',
        b'{"active": {"a": {"kind": "x", "at": NaN}, "b": {"kind": "x", "at": Infinity}}, "lost": {}}',
        b'{"active": {"a": {"kind": "x", "at": 1' + b"0" * 400 + b'}}, "lost": {}}',
        b"[" * 200_000,
        b'{"active": {' + b" " * 2_000_000 + b"}}",
    ],
)
def test_a_damaged_file_is_as_if_it_were_not_there(opened, tmp_path, content):
    (tmp_path / "jobs-dead.json").write_bytes(content)
    journal = opened()
    assert journal._lost == {}
    journal.add("a", "work")
    die(journal)
    assert opened().lost("a") == "work"
    assert not (tmp_path / "jobs-dead.json").exists()


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    journal = Journal()
    with caplog.at_level("WARNING", "studio"):
        assert journal.open(tmp_path / "file" / "cache") == 0
        journal.add("a", "work")
        journal.remove(["a"])
    assert [line.message for line in caplog.records] == ["journal_closed"]


def test_a_disk_that_is_full_is_told_once_and_lost_jobs_wait_for_the_next_process(
    opened, tmp_path, monkeypatch, caplog
):
    first = opened()
    first.add("a", "work")
    die(first)
    with monkeypatch.context() as full:

        def no_space(self, *args, **kwargs):
            raise OSError(28, "No space left on device")

        full.setattr(Path, "write_text", no_space)
        second = opened()
        assert second.lost("a") == "work", "told by this process, all the same"
        second.add("b", "work")
        second.add("c", "work")
    assert [line.message for line in caplog.records] == ["journal_unwritten"]
    die(second)
    assert opened().lost("a") == "work"
    assert len(files(tmp_path)) == 1


def test_many_threads_write_one_file(opened):
    journal = opened()

    def many(name: str) -> None:
        for number in range(20):
            journal.add(f"{name}{number}", "work")
            if number % 2:
                journal.remove([f"{name}{number}"])

    threads = [threading.Thread(target=many, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    die(journal)
    after = opened()
    assert {name for name in "abcd" if all(after.lost(f"{name}{number}") for number in range(0, 20, 2))} == set("abcd")
    assert not any(after.lost(f"{name}{number}") for name in "abcd" for number in range(1, 20, 2))


def test_a_page_of_an_earlier_server_is_told_what_was_lost(opened):
    first, go_on = opened(), threading.Event()
    registry = Registry(first)
    estimate = registry.start("a", lambda on_progress: go_on.wait(60), kind=ESTIMATE, visitor="v")
    search = registry.start("b", lambda on_progress: None, kind="search of λ", visitor="v")
    joined = registry.start("b", lambda on_progress: None, kind="search of λ", visitor="w")
    stopped = registry.start("c", lambda on_progress: None, visitor="v")
    registry.stop(stopped.id)
    die(first)
    second = Registry(opened())
    go_on.set()
    update = watched(second.get(estimate.id))
    assert "The server was restarted before your estimate of Fishers had ended" in update[2]
    assert "“Estimate Fisher” goes on from what it had saved" in update[2]
    assert update[0]["interactive"]
    assert not update[1]["interactive"]
    assert update[4] == "", "said once"
    for job in (search, joined):
        assert "before your search of λ had ended, which is lost. Begin it again" in second.get(job.id).message
    assert second.stop(search.id).state == "lost"
    assert second.get(stopped.id) is None


def test_what_ended_in_order_leaves_nothing(opened):
    first = opened()
    registry = Registry(first)
    jobs = [registry.start("key", lambda on_progress: None, visitor=visitor) for visitor in "abc"]
    for job in jobs:
        assert job.run.ended.wait(60)
    after = registry.start("after", lambda on_progress: None)
    assert after.run.ended.wait(60)
    registry._lanes["device"].submit(int).result(60)  # by then the last one's end is written
    die(first)
    second = opened()
    assert [second.lost(job.id) for job in [*jobs, after]] == [None] * 4
