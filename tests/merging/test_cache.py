"""The Fisher cache: whole files or none, under names made of everything that decides them."""

from pathlib import Path

import pytest

from merging import cache, diagonal_fisher
from merging.cache import FisherKey
from merging.errors import CacheError
from merging.fisher import Fisher
from tests import cases

KEY = FisherKey("c" * 64, "t" * 64, "fisher", 16, "exact", 0, "cpu")


def fisher():
    return diagonal_fisher(cases.model_case("softmax-3"), cases.batches_for("softmax-3", 3))


@pytest.mark.parametrize("field", FisherKey._fields)
def test_every_field_of_the_key_decides_the_name(field):
    other = {"examples": None, "seed": 1}.get(field, "other")
    assert KEY._replace(**{field: other}).digest() != KEY.digest()


def test_the_version_decides_the_name(monkeypatch):
    before = KEY.digest()
    monkeypatch.setattr(cache, "FISHER_VERSION", cache.FISHER_VERSION + 1)
    assert KEY.digest() != before


def test_what_is_written_is_read_back(fresh_cache):
    assert cache.read_fisher(KEY, Fisher.load) is None
    written = fisher()
    cache.write_atomically(cache.entry_path(KEY), written.save)
    found = cache.read_fisher(KEY, Fisher.load)
    assert all((found[name] == written[name]).all() for name in written)
    assert [path.name for path in fresh_cache.iterdir()] == [cache.entry_path(KEY).name]


@pytest.mark.parametrize("keep", [0, 7, 60, -1])
def test_a_damaged_entry_counts_as_none_and_is_removed(fresh_cache, keep):
    path = cache.entry_path(KEY)
    cache.write_atomically(path, fisher().save)
    path.write_bytes(path.read_bytes()[:keep])
    assert cache.read_fisher(KEY, Fisher.load) is None
    assert not path.exists()


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(fresh_cache):
    path = cache.entry_path(KEY)
    cache.write_atomically(path, lambda target: target.write_bytes(b"earlier"))

    def failing(target: Path):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CacheError, match=r"expected a folder with free space at .* got .No space left on device"):
        cache.write_atomically(path, failing)
    assert path.read_bytes() == b"earlier"
    assert list(fresh_cache.iterdir()) == [path]


def test_a_bug_of_the_writer_is_not_called_a_full_disk(fresh_cache):
    def failing(target: Path):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        cache.write_atomically(cache.entry_path(KEY), failing)
    assert not list(fresh_cache.iterdir())


def test_a_file_in_the_place_of_the_folder_is_an_unwritable_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("FISHER_CACHE_DIR", str(folder))
        with pytest.raises(CacheError, match=r"cannot be written: expected a folder .* set FISHER_CACHE_DIR"):
            cache.require_writable()
        with pytest.raises(CacheError, match=r"cannot be written"):
            cache.write_atomically(cache.entry_path(KEY), fisher().save)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_writable_cache_is_left_empty_by_the_check(fresh_cache):
    cache.require_writable()
    assert list(fresh_cache.iterdir()) == []


def test_the_folder_is_chosen_by_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path / "chosen"))
    assert cache.cache_folder() == tmp_path / "chosen"
    monkeypatch.delenv("FISHER_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "fisher-merge-studio" / "fishers"
