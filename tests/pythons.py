"""Finds another version of Python, for what is installed into an environment of its own."""

import os
import shutil
import subprocess
from pathlib import Path


def find(version: str) -> str | None:
    """The path of a Python of this version, such as "3.12", that can make environments; or None."""
    named = shutil.which(f"python{version}")
    return next((path for path in (named, *_of_pyenv(version)) if path and _is(path, version)), None)


def _of_pyenv(version: str) -> list[str]:
    root = os.environ.get("PYENV_ROOT") or _printed("pyenv", "root")
    folders = sorted(Path(root.strip()).glob(f"versions/{version}*")) if root else []
    return [str(folder / "bin" / f"python{version}") for folder in folders]


def _is(path: str, version: str) -> bool:
    # A name is no proof: pyenv's `python3.12` only tells that no such version is switched on.
    program = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    return _printed(path, "-c", program).strip() == version


def _printed(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
