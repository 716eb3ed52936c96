"""Builds the folder that is pushed as a Hugging Face Space: `make space`, or `python -m tools.space DIR`.

Only files that git tracks, as they stand in the checkout: the same checkout gives the same folder. Nothing but Python and
git is needed. To push it: `hf upload spaces/OWNER/NAME build/space . --delete "*"`.
"""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("app.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")
TREES = ("components", "merging")
# Debian packages that a Space installs. Not needed so far: every wheel brings its own libraries.
OPTIONAL = ("packages.txt",)
# Where a link of the README leads, if not out of the repository or to a place on the page itself.
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")


class SpaceError(Exception):
    """Why the folder cannot be built, for the one who asked for it."""


def build(folder: Path, *, root: Path = ROOT) -> list[str]:
    """Fills `folder` with what a Space needs, and nothing else; returns the files' names, sorted.

    A folder built before is replaced; any other that is not empty stays as it is. Raises: SpaceError.
    """
    names = needed_files(root)
    _clear(folder)
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)
        target.chmod(0o644)
    return names


def needed_files(root: Path = ROOT) -> list[str]:
    """The tracked files that a Space needs: the app, its two packages, the README and what that shows and links to."""
    tracked = set(_git_files(root))
    names = {name for name in tracked if name.split("/")[0] in TREES or name in (*FILES, *OPTIONAL)}
    absent = {*FILES, *(f"{tree}/__init__.py" for tree in TREES)} - names
    gone = {name for name in names if not (root / name).is_file()}
    if absent or gone:
        raise SpaceError(
            f"expected these files in git and in {root}, got none: {_listed(absent | gone)}. Restore them."
        )
    loose = _git_files(root, "--others", "--exclude-standard", "--", *FILES, *TREES)
    if loose:
        raise SpaceError(f"expected every file to be in git, got {_listed(loose)} beside them. Add or remove them.")
    return sorted(names | _linked_files(root, tracked))


def digest(folder: Path, names: list[str]) -> str:
    """One SHA-256 of all names and contents: equal folders, equal digests."""
    total = hashlib.sha256()
    for name in names:
        content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def _linked_files(root: Path, tracked: set[str]) -> set[str]:
    text = (root / "README.md").read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        raise SpaceError("expected README.md to begin with a Space's front matter (---), got none. Put it back.")
    linked = set(LINK.findall(text))
    broken = {name for name in linked if name not in tracked or not (root / name).is_file()}
    if broken:
        raise SpaceError(f"README.md links to {_listed(broken)}: expected files in git, got none. Mend the links.")
    return linked


def _git_files(root: Path, *words: str) -> list[str]:
    try:
        done = subprocess.run(["git", "ls-files", "-z", *words], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        raise SpaceError("expected git, which knows the files to push, got no such program. Install it.") from None
    if done.returncode != 0:
        raise SpaceError(f"expected a git checkout at {root}, got: {done.stderr.strip()} Clone the repository.")
    return [name for name in done.stdout.split("\0") if name]


def _clear(folder: Path) -> None:
    # Whatever else lies there is somebody's: a mistaken DIR=. or DIR=$HOME loses nothing.
    if folder.exists() and not folder.is_dir():
        raise SpaceError(f"expected a folder at {folder}, got a file. Name another one: make space SPACE=DIR.")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and (not {"app.py", *TREES} <= there or (folder / ".git").exists() or (folder / "Makefile").exists()):
        raise SpaceError(
            f"expected {folder} to be missing, empty or built before, got {_listed(there)} in it. "
            "Empty it, or name another one: make space SPACE=DIR."
        )
    if there:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _listed(names: set[str] | list[str]) -> str:
    shown = [repr(name) for name in sorted(names)]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def main(arguments: list[str]) -> int:
    """Builds the folder named on the command line, and says what is in it."""
    if len(arguments) != 1 or not arguments[0].strip():
        print("Usage: python -m tools.space DIR", file=sys.stderr)
        return 2
    folder = Path(arguments[0]).expanduser()
    try:
        names = build(folder)
    except (SpaceError, OSError) as error:
        print(f"The Space's folder was not built: {error}", file=sys.stderr)
        return 2
    size_bytes = sum((folder / name).stat().st_size for name in names)
    print(f"{folder}: {len(names)} files, {size_bytes / 1e6:.1f} MB, sha256 {digest(folder, names)[:16]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
