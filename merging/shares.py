"""One set of rows cut into splits by seed, so that no row stands in two of them."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy

from merging.errors import TaskError


def check_shares(shares: object, allowed: Sequence[str], *, what: str) -> dict[str, float]:
    """The shares as numbers, without those that are 0.

    Raises: TaskError unless they are numbers of 0 or more for known splits that sum to 1.
    """
    sound = isinstance(shares, Mapping) and all(
        split in allowed and isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1
        for split, share in shares.items()
    )
    if not sound or abs(sum(shares.values()) - 1) > 1e-6:
        raise TaskError(
            f"{what} cannot be cut: expected shares of {', '.join(allowed)} that sum to 1 "
            f"(for example {{fisher: 0.6, validation: 0.2, test: 0.2}}), got {shares!r:.120}. Mend the shares."
        )
    return {split: float(share) for split, share in shares.items() if share}


@lru_cache(maxsize=16)
def cut(
    rows, shares: tuple[tuple[str, float], ...], *, seed: int, inputs: Sequence[str] | None, what: str
) -> dict[str, list[int]]:
    """The numbers of each split's rows, in the order of the rows; duplicates come into one split.

    Rows are duplicates if their `inputs` (all columns where None) are equal but for case and blanks, or are the
    same picture byte by byte.

    Raises: TaskError if a split would have no rows.
    """
    groups: dict[tuple, list[int]] = {}
    for number, key in enumerate(_keys(rows, inputs or rows.column_names)):
        groups.setdefault(key, []).append(number)
    ordered = list(groups.values())
    found: dict[str, list[int]] = {split: [] for split, _ in shares}
    total = sum(share for _, share in shares)
    bounds = numpy.cumsum([share / total for _, share in shares]) * len(rows)
    placed = 0
    for index in numpy.random.default_rng(seed).permutation(len(ordered)):
        split = int(numpy.searchsorted(bounds[:-1], placed + 0.5))
        found[shares[split][0]].extend(ordered[index])
        placed += len(ordered[index])
    empty = [split for split, numbers in found.items() if not numbers]
    if empty:
        raise TaskError(
            f"{what} cannot be cut into {', '.join(found)}: expected different rows for each, got {len(ordered)} "
            f"different rows and none for {', '.join(empty)}. Add rows, or state other shares."
        )
    return {split: sorted(numbers) for split, numbers in found.items()}


def _keys(rows, columns: Sequence[str]) -> list[tuple]:
    return list(zip(*[_column_keys(rows, column) for column in columns], strict=True))


def _column_keys(rows, column: str) -> list[object]:
    from datasets import Image

    if isinstance(rows.features[column], Image):
        return [_picture_key(stored) for stored in rows.cast_column(column, Image(decode=False))[column]]
    return [" ".join(value.split()).casefold() if isinstance(value, str) else str(value) for value in rows[column]]


def _picture_key(stored: Mapping[str, object] | None) -> bytes | None:
    if stored is None:
        return None
    content = stored["bytes"] if stored["bytes"] is not None else Path(str(stored["path"])).read_bytes()
    return hashlib.sha256(content).digest()
