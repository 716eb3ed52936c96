"""The errors that users read, as one tree.

Every message says what failed, what was expected, what was got, and what to do. Anything that is
not a `MergingError` (or `Cancelled`) is a bug.
"""

import difflib
from collections.abc import Iterable

# How much of a name or a value a message shows, in characters.
LONGEST = 160


class MergingError(Exception):
    """Something that the user can put right; the message says how."""


class StructureError(MergingError):
    """Models, or a model and its Fisher, whose parameters do not fit together."""


class CheckpointError(MergingError):
    """A checkpoint that is missing, damaged, or not of a kind that can be merged."""


class TaskError(MergingError):
    """A task whose data, columns or labels cannot be used."""


class PoolError(MergingError):
    """A pool that is missing or incomplete."""


class RecipeError(MergingError):
    """A recipe, or a setting in it, that cannot be carried out."""


class FisherError(MergingError):
    """A Fisher that cannot be estimated, or that does not belong to its model."""


class CacheError(MergingError):
    """A Fisher cache that cannot be read or written."""


class ExportError(MergingError):
    """A merged model that cannot be written where it was asked for."""


class DeviceError(MergingError):
    """A device that this machine does not have, or whose memory does not suffice."""


class Cancelled(Exception):
    """Raised by an `on_progress` callback to stop long work; an unfinished Fisher goes on from its last batch later."""


def quoted(names: Iterable[object], limit: int = 5) -> str:
    """The names, sorted, in quotes, cut at `limit`: `"a", "b" and 3 more`."""
    ordered = sorted(str(name) for name in names)
    if not ordered:
        return "nothing"
    named = ", ".join(f'"{name:.{LONGEST}}"' for name in ordered[:limit])
    return named if len(ordered) <= limit else f"{named} and {len(ordered) - limit} more"


def shown(value: object) -> str:
    """A value as Python writes it, cut at `LONGEST`; what arrives may be anything."""
    try:
        return f"{value!r:.{LONGEST}}"
    except (ValueError, RecursionError):  # whole numbers of thousands of digits; lists nested too deeply
        return f"a value of type {type(value).__name__}"


def nearest(name: object, choices: Iterable[str]) -> str:
    """What to do about an unknown name: the choice most like it, else a hint that there are others."""
    matches = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.5)
    return f'Did you mean "{matches[0]}"?' if matches else "Pick one of those."


def require_choice(what: str, value: object, choices: Iterable[str], *, error: type[MergingError] = RecipeError) -> str:
    """`value` if it is one of `choices`.

    Raises: `error`, which offers the nearest match.
    """
    choices = list(choices)
    if value not in choices:
        text = value[:LONGEST] if isinstance(value, str) else shown(value)
        raise error(f'Unknown {what}: expected one of {quoted(choices, 20)}, got "{text}". {nearest(text, choices)}')
    return str(value)
