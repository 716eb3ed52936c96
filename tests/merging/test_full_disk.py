"""A disk that is really full, under the cache and under the output."""

import os
import resource
import subprocess
from contextlib import contextmanager

from merging.__main__ import main
from tests import cases


@contextmanager
def small_disk(folder):
    """A folder in which 64 KB fit: a mounted disk where that is allowed, else a limit on the size of a file."""
    folder.mkdir()
    if (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False, capture_output=True
        ).returncode
    ):
        try:
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_under_the_cache(tmp_path, monkeypatch, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(cases.two_tasks().to_yaml())
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path / "disk"))
    with small_disk(tmp_path / "disk"):
        assert main(["run", str(path), "--output", str(tmp_path / "out")]) == 2
        assert list((tmp_path / "disk").iterdir()) == []
    message = capsys.readouterr().err
    assert "The Fisher cache cannot be written: expected a folder with free space" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_a_full_disk_under_the_output(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(cases.two_tasks().to_yaml())
    assert main(["fisher", str(path)]) == 0
    with small_disk(tmp_path / "disk"):
        assert main(["run", str(path), "--output", str(tmp_path / "disk" / "out")]) == 2
        assert list((tmp_path / "disk").iterdir()) == []
    message = capsys.readouterr().err
    assert 'out" cannot be written: expected a folder with free space, got' in message
    assert "nothing was changed" in message
