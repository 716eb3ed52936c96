"""The Dockerfile, read: what it copies, who runs what, and what the engine asks."""

import json
import shlex
from pathlib import Path

from dockerfile_parse import DockerfileParser

PATH = Path(__file__).resolve().parent.parent / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its words, in order."""
    parser = DockerfileParser(path=str(PATH))
    return [(one["instruction"], one["value"]) for one in parser.structure if one["instruction"] != "COMMENT"]


def values(instruction: str) -> list[str]:
    """The words of every instruction of one kind."""
    return [value for name, value in instructions() if name == instruction]


def environment() -> dict[str, str]:
    """The variables that ENV sets."""
    return dict(pair.split("=", 1) for value in values("ENV") for pair in shlex.split(value))


def copied() -> list[tuple[list[str], str]]:
    """What every COPY copies, and where to."""
    return [(words[:-1], words[-1]) for words in map(shlex.split, values("COPY"))]


def command() -> list[str]:
    """What runs in the container."""
    return json.loads(values("CMD")[-1])


def health_command() -> list[str]:
    """What the engine runs in the container to see whether it is well."""
    return json.loads(values("HEALTHCHECK")[-1].split("CMD", 1)[1])
