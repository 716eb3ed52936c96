"""Data that would harm whoever reads it: refused before it is read.

A Parquet file may declare a column of pictures that are only named, by path or address, and `datasets` opens whatever is
named: files of this machine, addresses inside its network. A dataset's card on the Hub may do the same with whole data
files. And at a null in place of a row of JSON, pyarrow 26 ends the process.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from merging.errors import TaskError

# What is no path within a repository: absolute, with a protocol or a drive, or above it.
_ELSEWHERE = re.compile(r"^[/\\~]|^[A-Za-z][A-Za-z0-9+.-]*:|(^|[/\\])\.\.([/\\]|$)")
_BLANK = b" \t\r\n\xef\xbb\xbf"
LONGEST_LINE = 1 << 20


def require_own_pictures(rows, what: str, folders: Sequence[Path] = ()):
    """The rows, without columns of sound, film and the like, which nothing here reads and which name files, too.

    Pictures have to be held by the rows, or to lie in one of `folders`.

    Raises: TaskError for others.
    """
    from datasets import Image
    from datasets.features.features import require_decoding

    decoded = [name for name, feature in rows.features.items() if require_decoding(feature)]
    pictures = [name for name in decoded if isinstance(rows.features[name], Image)]
    inside = [folder.resolve() for folder in folders]
    for name in pictures:
        for path in _named_only(rows.data.column(name)):
            if not any(Path(path).resolve().is_relative_to(folder) for folder in inside):
                raise TaskError(
                    f'{what} cannot be read: expected pictures inside the data, got some in "{name}" that are only named, '
                    "by a path or an address. Save the data with its pictures in it."
                )
    return rows.remove_columns([name for name in decoded if name not in pictures])


def require_own_files(dataset: str, configs: object) -> None:
    """Looks at what a dataset's card says of its data files. Raises: TaskError if some are not the repository's own."""
    for pattern in _texts([one.get("data_files") for one in configs or () if isinstance(one, dict)]):
        if _ELSEWHERE.search(pattern):
            raise TaskError(
                f'Dataset "{dataset}" cannot be had: expected data files of its own, got a card that names files elsewhere. '
                "Pick another dataset."
            )


def require_no_null_row(file: BinaryIO, name: str) -> None:
    """Looks at JSON, a row to a line or a list of rows. Raises: TaskError at a null in place of a row."""
    in_list, number = None, 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        text = line.strip(_BLANK)
        if in_list is None and text:
            in_list = text.startswith(b"[")
        row = text.removeprefix(b"[").lstrip(_BLANK) if in_list else text
        if row == b"null" or (in_list and row.startswith(b"null")):
            raise TaskError(
                f'"{name}" cannot be read: expected an object in braces for each row, got null in line {number}. '
                "Mend the file."
            )
        if in_list and row:
            return  # only a list's first row matters


def _named_only(column) -> list[str]:
    """The paths of pictures whose content is not there."""
    import pyarrow.compute as compute

    parts = column.combine_chunks()
    paths, content = compute.struct_field(parts, "path"), compute.struct_field(parts, "bytes")
    named = paths.filter(compute.and_(compute.is_null(content), compute.is_valid(paths)))
    return named.unique().to_pylist()


def _texts(value: object) -> list[str]:
    """Every text in lists and mappings, but for the names of splits."""
    if isinstance(value, dict):
        return _texts([own for name, own in value.items() if name != "split"])
    if isinstance(value, list | tuple):
        return [text for own in value for text in _texts(own)]
    return [value] if isinstance(value, str) else []
