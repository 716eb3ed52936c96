"""What was downloaded for strangers stays within a limit, and nothing that is in use goes."""

import os
import shutil
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from merging.checkpoints import open_checkpoint
from merging.downloads import evict_downloads
from merging.tasks import open_task
from merging.zoo import ZOO_FOLDER

NAMES = ("parity", "large", "loop")
DAY_S = 86_400.0


@pytest.fixture
def downloaded(hub, tmp_path, monkeypatch):
    """The folders of three checkpoints, downloaded, the first one used three days ago, the second two, the third one."""
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "rows")
    folders = {}
    for age, name in zip((3, 2, 1), NAMES, strict=True):
        hub.add(f"lab/{name}", ZOO_FOLDER / "digits" / "checkpoints" / name)
        folders[name] = open_checkpoint(f"lab/{name}").folder
        _age(_repository(folders[name]), age * DAY_S)
    return folders


def _repository(snapshot: Path) -> Path:
    return snapshot.parent.parent


def _age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)


def _downloaded_bytes() -> int:
    return sum(path.stat().st_size for path in Path(constants.HF_HUB_CACHE).glob("*/blobs/*"))


def _left(folders: dict[str, Path]) -> list[str]:
    return [name for name, folder in folders.items() if folder.is_dir()]


def test_under_the_limit_everything_stays(downloaded):
    assert evict_downloads(10**9) == 0
    assert _left(downloaded) == list(NAMES)


def test_what_was_used_longest_ago_goes_first_and_comes_again_when_it_is_asked_for(downloaded):
    total = _downloaded_bytes()
    assert evict_downloads(total - 1) > 0
    assert _left(downloaded) == ["large", "loop"]
    assert open_checkpoint("lab/parity").folder.is_dir()
    assert evict_downloads(total - 1) > 0
    assert _left(downloaded) == ["parity", "loop"], "what has just been opened is the newest"


def test_what_is_in_use_or_was_a_moment_ago_stays_whatever_the_limit(downloaded):
    open_checkpoint("lab/loop")
    evict_downloads(0, in_use=[downloaded["parity"]])
    assert _left(downloaded) == ["parity", "loop"]


def test_the_rows_of_datasets_count_and_are_read_anew(downloaded, tmp_path):
    from datasets import config

    table = tmp_path / "own" / "rows.csv"
    table.parent.mkdir()
    table.write_text("text,label\n" + "".join(f"row {number},{number % 2}\n" for number in range(40)))
    assert len(open_task(str(table)).rows("test")) > 0
    (rows,) = [path for path in Path(config.HF_DATASETS_CACHE).iterdir() if path.is_dir()]
    _age(rows, 4 * DAY_S)
    assert evict_downloads(_downloaded_bytes()) > 0
    assert not rows.exists()
    assert _left(downloaded) == list(NAMES)
    table.write_text(table.read_text() + "one more,1\n")
    assert len(open_task(str(table)).rows("test")) > 0


def test_without_any_cache_there_is_nothing_to_do(hub, tmp_path, monkeypatch):
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "none")
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    assert evict_downloads(0) == 0
