"""Hugging Face's `datasets`, for several threads at once."""

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
