"""What many threads free goes back to the machine: the C library would keep it for the thread that had it."""

import ctypes
import threading
import time
from collections.abc import Callable

# glibc gives up to eight arenas a core to threads, and what is freed in one of them stays there: too much for forty threads.
M_ARENA_MAX, ARENAS = -8, 2
TRIMMED_EVERY_S = 20.0


def begin() -> None:
    """From now on the C library has few arenas, and hands back what lies free in them; nothing, with another one than glibc."""
    try:
        library = ctypes.CDLL(None)
        library.mallopt(M_ARENA_MAX, ARENAS)
        trim = library.malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    threading.Thread(target=_keep_trimming, args=(trim,), daemon=True).start()


def _keep_trimming(trim: Callable[[int], int]) -> None:
    while True:
        time.sleep(TRIMMED_EVERY_S)
        trim(0)
