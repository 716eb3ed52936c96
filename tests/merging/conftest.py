"""What several tests of `merging` stand on."""

import pytest

from tests.loopback_hub import connect, loopback_hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that this process's client speaks to, where `tester` may write under its own name."""
    with loopback_hub(tmp_path / "hub") as running:
        connect(monkeypatch, running, tmp_path / "home")
        yield running
