"""Hugging Face's `datasets`, for several threads at once."""

import errno
import os
from contextlib import nullcontext
from types import ModuleType


def library() -> ModuleType:
    """The package `datasets`, which takes a second to import.

    For the place of its progress bars it sets a variable of the process's environment by `mock.patch.dict`, which empties
    the whole environment for a moment: other threads then miss what they look up there. The bars are off here.
    """
    import datasets
    from datasets.download import download_manager

    download_manager.stack_multiprocessing_download_progress_bars = nullcontext
    return datasets


def no_room(problem: BaseException | None) -> str | None:
    """What to say where not the data are to blame but a disk: `datasets` keeps a copy of the rows that it reads."""
    while problem is not None:
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return (
                f'expected room for a copy of its rows in the cache of `datasets`, got "{os.strerror(problem.errno)}". '
                "Make room, or let HF_DATASETS_CACHE name a folder on another disk."
            )
        problem = problem.__cause__ or problem.__context__
    return None
