"""`datasets` in several threads: nobody else's look at the environment fails meanwhile."""

import os
import sys
import threading

import pytest

from merging.dataset_library import library


@pytest.fixture
def quick_turns():
    """Threads take turns as often as on the page."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_the_environment_stays_whole_while_files_are_read(tmp_path, monkeypatch, quick_turns):
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path))
    missed, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            if "FISHER_CACHE_DIR" not in os.environ:
                missed.append("once")

    def read(number: int) -> None:
        for part in range(5):
            path = tmp_path / f"{number}-{part}.csv"
            path.write_text("text,label\nwell,1\n")
            library().load_dataset("csv", data_files=str(path), cache_dir=str(tmp_path / "rows"))

    looking = threading.Thread(target=look)
    reading = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in (looking, *reading):
        thread.start()
    for thread in reading:
        thread.join()
    done.set()
    looking.join()
    assert not missed
