"""Data that a visitor uploads, to look at it and to merge by it."""

import logging
import time
from pathlib import Path

import gradio as gr

from components import logs
from components.modes import UPLOAD_LIMITS, is_hosted
from components.pages import visitor
from components.visit_folders import FOLDERS
from merging.errors import MergingError
from merging.sources import FORMATS
from merging.upload_references import upload_reference
from merging.uploads import receive_upload

UPLOADS = [*FORMATS, ".zip"]


def uploaded(path: str | None) -> str:
    """An uploaded file as the dataset to look at: its path, or on a hosted page its name in the visit's own folder."""
    if not path:
        return ""
    if not is_hosted():
        return str(path)
    begun, size = time.monotonic(), Path(path).stat().st_size
    try:
        reference = upload_reference(receive_upload(Path(path), FOLDERS.of(visitor()), limits=UPLOAD_LIMITS))
    except (MergingError, OSError) as problem:
        logs.event("upload_refused", logging.WARNING, problem=problem, bytes=size)
        gr.Warning(logs.told(str(problem)))
        return ""
    logs.event("uploaded", bytes=size, seconds=round(time.monotonic() - begun, 2))
    return reference
