"""A server for strangers keeps what it downloads for them within a limit."""

import logging
import os
import threading
import time

from components import logs
from components.store import STORE
from merging.cache_space import limit_bytes
from merging.downloads import evict_downloads

LIMIT_VARIABLE, DEFAULT_LIMIT = "FISHER_DOWNLOADS_LIMIT", "30GB"
SWEPT_EVERY_S = 300.0


def begin() -> None:
    """Sweeps from time to time, in a thread of its own, on a Space or where a limit is set.

    Elsewhere the caches are shared with whatever else their owner runs. Raises: CacheError if the limit is no size.
    """
    if not any(map(os.environ.get, ("SPACE_ID", LIMIT_VARIABLE))):
        return
    limit = limit_bytes(LIMIT_VARIABLE, DEFAULT_LIMIT)
    threading.Thread(target=_keep_sweeping, args=(limit,), daemon=True).start()


def swept(limit: int) -> int:
    """Deletes downloads over the limit, those of prepared merges excepted; the bytes that are free now."""
    freed = evict_downloads(limit, in_use=STORE.folders())
    if freed:
        logs.event("downloads_evicted", bytes=freed)
    return freed


def _keep_sweeping(limit: int) -> None:
    while True:
        time.sleep(SWEPT_EVERY_S)  # not at once: the first picture is being made
        try:
            swept(limit)
        except Exception as problem:  # whatever lies in those folders, the next sweep comes
            logs.event("downloads_unswept", logging.WARNING, problem=problem)
