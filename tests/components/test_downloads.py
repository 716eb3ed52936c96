"""A hosted page's downloads: what a prepared merge needs stays, the rest goes, and the log counts it."""

import os
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from components import downloads, logs
from components.store import STORE
from merging.checkpoints import open_checkpoint
from merging.errors import CacheError
from merging.pipeline import prepare
from merging.recipe import FisherSettings, ModelEntry, Recipe
from merging.zoo import ZOO_FOLDER


def test_what_a_prepared_merge_needs_stays_and_the_rest_is_counted(hub, tmp_path, monkeypatch, caplog):
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "rows")
    for name in ("parity", "large", "loop"):
        hub.add(f"lab/{name}", ZOO_FOLDER / "digits" / "checkpoints" / name)
    models = tuple(ModelEntry(f"lab/{name}", f"zoo:digits/{name}") for name in ("parity", "large"))
    recipe = Recipe(models=models, rule="isotropic", fisher=FisherSettings(examples=8))
    STORE.put(recipe, prepare(recipe))
    unused = open_checkpoint("lab/loop").folder
    then = time.time() - 86_400
    for path in Path(constants.HF_HUB_CACHE).rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)
    caplog.set_level("INFO", logs.STUDIO)
    freed = downloads.swept(0)
    assert [(record.message, record.fields) for record in caplog.records] == [("downloads_evicted", {"bytes": freed})]
    assert freed > 0
    assert not unused.exists()
    assert all(folder.is_dir() for folder in STORE.folders() if folder.is_relative_to(tmp_path))
    assert downloads.swept(0) == 0


def test_a_limit_that_is_no_size_ends_the_start(monkeypatch):
    monkeypatch.setenv(downloads.LIMIT_VARIABLE, "plenty")
    with pytest.raises(CacheError, match='FISHER_DOWNLOADS_LIMIT cannot be read: expected a size such as "30GB"'):
        downloads.begin()


def test_the_caches_of_somebodys_own_machine_are_left_alone(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.delenv(downloads.LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr(downloads.threading, "Thread", None)  # whoever began one would fail
    downloads.begin()
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    with pytest.raises(TypeError):
        downloads.begin()
