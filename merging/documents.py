"""YAML and JSON that strangers wrote, read within bounds: plain values come out, or one error that says what is wrong."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import yaml

# Recipes, cards and task descriptions take some kilobytes; PyYAML reads about a hundred of them in a second.
LARGEST = 128_000  # characters
DEEPEST = 40  # lists and mappings within each other
# An alias stands for all that it names: a few lines can stand for more than any memory holds.
MOST_VALUES = 100_000
LONGEST_NUMBER = 90  # characters
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Unreadable(ValueError):
    """Text that is no YAML or JSON, or more of it than is read; one line says why."""


def read_yaml(text: str) -> object:
    """The values of a YAML text; tags that would make anything but plain values are refused.

    Raises: Unreadable.
    """
    if len(text) > LARGEST:
        raise Unreadable(f"more than {LARGEST:,} characters")
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, 1, {})
        return loader.construct_document(node)
    except Unreadable:
        raise
    # Where a scalar is not what its tag says, PyYAML passes on whatever Python raises.
    except Exception as problem:
        raise Unreadable(reason(problem)) from problem
    finally:
        if loader is not None:
            loader.dispose()


def write_yaml(content: object) -> str:
    """Plain values as YAML that `read_yaml` reads back to equal ones."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    # PyYAML writes Unicode's own line breaks as they are, and reads them as blanks.
    return yaml.safe_dump(content, sort_keys=False, width=120) if set("\x85\u2028\u2029") & set(text) else text


def read_json(text: str | bytes) -> object:
    """The values of a JSON text. Raises: Unreadable."""
    try:
        return json.loads(text)
    except RecursionError as problem:
        raise Unreadable("lists or mappings nested too deeply") from problem
    except ValueError as problem:
        raise Unreadable(reason(problem)) from problem


def read_text(path: Path) -> str:
    """A file's text, of which no more is read than `read_yaml` takes. Raises: OSError; Unreadable if it is no UTF-8."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LARGEST + 1)
    except UnicodeDecodeError as problem:
        raise Unreadable("no UTF-8 text") from problem


def reason(problem: Exception) -> str:
    """The first line of what went wrong."""
    text = getattr(problem, "strerror", None) or str(problem).strip() or type(problem).__name__
    return text.splitlines()[0][:160]


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value holds only what JSON and YAML write alike: text that can be stored, numbers, lists, mappings."""
    if depth > DEEPEST:
        return False
    if isinstance(value, str):
        return is_storable(value)
    if isinstance(value, list | tuple):
        return all(is_plain(one, depth + 1) for one in value)
    if isinstance(value, Mapping):
        # Names of fields; PyYAML does not read back every other one that it writes.
        named = all(isinstance(key, str) and key.isprintable() and is_storable(key) for key in value)
        return named and all(is_plain(own, depth + 1) for own in value.values())
    if isinstance(value, int):
        return abs(value) < 10**LONGEST_NUMBER
    return value is None or (isinstance(value, float) and math.isfinite(value))


def is_storable(text: str) -> bool:
    """Whether a text can be written into a file: JSON may hold halves of characters, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _count(node: yaml.Node, depth: int, counts: dict[int, int | None]) -> int:
    """How many values a node stands for, with all that its aliases repeat. Raises: Unreadable."""
    if id(node) in counts:
        if counts[id(node)] is None:
            raise Unreadable("an alias to what it stands in")
        return counts[id(node)]
    if depth > DEEPEST:
        raise Unreadable(f"lists or mappings nested deeper than {DEEPEST}")
    counts[id(node)], count = None, 1
    if isinstance(node, yaml.ScalarNode):
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise Unreadable(f"a number of more than {LONGEST_NUMBER} characters")
    else:
        inner = [one for own in node.value for one in (own if isinstance(own, tuple) else (own,))]
        for one in inner:
            count += _count(one, depth + 1, counts)
            if count > MOST_VALUES:
                raise Unreadable(f"aliases that stand for more than {MOST_VALUES:,} values")
    counts[id(node)] = count
    return count
