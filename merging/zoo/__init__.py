"""The embedded pools: one folder each, holding a pool.yaml, data, tasks and checkpoints, beside the scripts that build them."""

from pathlib import Path

ZOO_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The embedded pools by name, sorted: every folder here that holds a pool.yaml."""
    return sorted(path.parent.name for path in ZOO_FOLDER.glob("*/pool.yaml"))
