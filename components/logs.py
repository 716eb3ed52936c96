"""The server's log: one line of JSON an event, without tokens, paths, or what visitors named.

`FISHER_LOG_LEVEL` says how much: `DEBUG`, `INFO` (else), `WARNING` or `ERROR`.
"""

import json
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from components.modes import is_hosted

LEVEL_VARIABLE = "FISHER_LOG_LEVEL"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
STUDIO = "studio"
ROOT = Path(__file__).resolve().parent.parent
LONGEST_TEXT = 500
DEEPEST = 12

TOKEN, PLACE = "[token]", "[path]"
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
SHORTEST_SECRET = 8
# Each keeps what its group holds: the word that says that a secret follows.
TOKENS = (
    re.compile(r"()\b(?:hf|api_org|oauth|sk|ghp|gho|github_pat)_[A-Za-z0-9_-]{6,}"),
    re.compile(r"\b(Bearer\s+)[^\s\"',;]+", re.IGNORECASE),
    re.compile(r"(://)[^/\s@\"']+(?=@)"),
    re.compile(r"\b((?:[a-z_-]*token|signature|password|secret|api_?key)=)[^&\s\"']+", re.IGNORECASE),
)
# In quotes a path may hold spaces; outside, it ends at the first. "and/or", "n/a" and addresses are none.
PATHS = (
    re.compile(r"(?<=[\"'“‘`])(?:~|/|[A-Za-z]:[\\/]|\\\\|file://)[^\"'”’`\n]*(?=[\"'”’`])"),
    re.compile(r"file://\S+|(?<![\w:/.~λ)\]<])(?:~?/|[A-Za-z]:[\\/])[^\s\"'”’`,;:<>()]*\w[^\s\"'”’`,;:<>()]*"),
)


def begin(stream: TextIO | None = None) -> None:
    """Makes every line of the process's log one of JSON, on standard error."""
    if not isinstance(sys.stderr, Belt):
        sys.stderr = Belt(sys.stderr, paths=is_hosted())
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    chosen = os.environ.get(LEVEL_VARIABLE, "INFO").strip().upper()
    level = chosen if chosen in LEVELS else "INFO"
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Of other libraries only what is wrong: their INFO tells addresses and file names.
    root.setLevel(max(logging.getLevelName(level), logging.WARNING))
    logging.getLogger(STUDIO).setLevel(level)
    if level != chosen:
        event("log_level_unknown", logging.WARNING, expected=list(LEVELS), used=level)


def event(name: str, level: int = logging.INFO, *, problem: BaseException | None = None, **fields: object) -> None:
    """One line: what happened, with numbers and words of our own. Of a problem its kind and where in the code it arose."""
    if problem is not None:
        fields |= {"error": type(problem).__name__, "at": list(frames(problem))}
    logging.getLogger(STUDIO).log(level, name, extra={"fields": fields})


def frames(problem: BaseException) -> Iterator[str]:
    """Where a problem arose, the innermost last: module, line, function, without the folders of this machine."""
    for frame in traceback.extract_tb(problem.__traceback__)[-DEEPEST:]:
        path = Path(frame.filename)
        inside = path.relative_to(ROOT) if path.is_relative_to(ROOT) and "site-packages" not in path.parts else None
        place = inside.as_posix() if inside else "/".join(path.parts[-2:])
        yield f"{place}:{frame.lineno} {frame.name}"


def redacted(text: str, *, paths: bool = True) -> str:
    """The text without tokens, without secrets of the environment, and without places on this machine's disk."""
    for secret in _secrets():
        text = text.replace(secret, TOKEN)
    for pattern in TOKENS:
        text = pattern.sub(rf"\1{TOKEN}", text)
    if paths:
        for folder in _folders():
            # With what follows it up to a quote or a space.
            text = re.sub(re.escape(folder) + r"[^\s\"'”’`,;:<>()]*", PLACE, text)
        for pattern in PATHS:
            text = pattern.sub(PLACE, text)
    return text


def told(text: str) -> str:
    """The text as visitors read it: without places on a page that strangers use, whole on one's own machine."""
    return redacted(text) if is_hosted() else text


class Belt:
    """Standard error without secrets, for what is written past the log: Gradio prints the traceback of a failed event.

    Whose machine it is reads where its files lie; the log of a server that strangers use holds no places.
    """

    def __init__(self, stream: TextIO, *, paths: bool) -> None:
        self._stream, self._paths = stream, paths

    def write(self, text: str) -> int:
        """Writes the text, redacted."""
        self._stream.write(redacted(text, paths=self._paths))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, event, then its fields; redacted, whoever wrote it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
        }
        if record.name == STUDIO and isinstance(fields := getattr(record, "fields", None), Mapping):
            line |= {"event": record.getMessage(), **fields}
        else:
            line |= {"event": "log", "logger": record.name, "text": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            line |= {"error": type(record.exc_info[1]).__name__, "at": list(frames(record.exc_info[1]))}
        return json.dumps(_clean(line), ensure_ascii=False, default=str)


def _clean(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _place_of(key, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    if isinstance(value, float):
        return round(value, 3) if value == value and abs(value) != float("inf") else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    text = redacted(str(value))
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _place_of(key: object, value: object) -> object:
    # Places in the code are ours, and look like paths.
    return [redacted(str(one), paths=False) for one in value] if key == "at" else _clean(value)


def _secrets() -> list[str]:
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET}
    return sorted(found, key=len, reverse=True)


def _folders() -> list[str]:
    """Folders whose names the patterns may miss, because of spaces in them; the longest first."""
    named = [os.environ.get(name, "") for name in ("FISHER_CACHE_DIR", "HF_HOME", "GRADIO_TEMP_DIR", "XDG_CACHE_HOME")]
    folders = {str(ROOT), os.path.expanduser("~"), tempfile.gettempdir(), os.getcwd(), *named}
    return sorted((folder for folder in folders if len(folder) > 1), key=len, reverse=True)
