"""Tensors in safetensors files, read in parts at their offsets: memory does not grow with the files."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from merging.errors import CheckpointError, quoted

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
LARGEST_HEADER = 100_000_000  # bytes, the format's own limit


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: `offset` is that of its first byte in the file."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    def is_floating_point(self) -> bool:
        """Whether it can be averaged."""
        return self.dtype.is_floating_point

    def numel(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """What it takes in the file."""
        return self.numel() * self.dtype.itemsize


class TensorFiles(Mapping[str, StoredTensor]):
    """The tensors of one or more safetensors files by name, in the files' order; to be closed, or used by `with`.

    Raises: CheckpointError if a file is missing, cut short or damaged, or a tensor is stored twice.
    """

    def __init__(self, files: Sequence[Path]):
        self.files = [Path(file) for file in files]
        self.metadata: dict[str, str] = {}
        self._tensors: dict[str, StoredTensor] = {}
        self._descriptors: dict[Path, int] = {}
        self._open = ExitStack()
        try:
            for file in self.files:
                self._add(file)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> "TensorFiles":
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; what was read stays."""
        self._open.close()

    def read(self, name: str, start: int, view: memoryview) -> None:
        """Fills `view`, a view of bytes, with the tensor's numbers from `start` on.

        Raises: CheckpointError if the file ends before them.
        """
        tensor = self._tensors[name]
        position = tensor.offset + start * tensor.dtype.itemsize
        while view:
            try:
                count = os.preadv(self._descriptors[tensor.file], [view], position)
            except OSError as problem:
                raise _damaged(tensor.file, "a file that can be read", problem.strerror) from problem
            if count == 0:
                raise _damaged(tensor.file, f'all of "{name}"', "the end of the file")
            view, position = view[count:], position + count

    def _add(self, file: Path) -> None:
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except OSError as problem:
            raise _damaged(file, "a safetensors file", problem.strerror) from problem
        self._open.callback(os.close, descriptor)
        self._descriptors[file] = descriptor
        tensors, metadata = _read_header(file, descriptor)
        self.metadata |= metadata
        for tensor in tensors:
            if tensor.name in self._tensors:
                other = self._tensors[tensor.name].file.name
                raise _damaged(file, "every tensor once", f'"{tensor.name}", which is in "{other}", too')
            self._tensors[tensor.name] = tensor


def header_bytes(tensors: Sequence[tuple[str, torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """What stands before the numbers of a safetensors file with these tensors in this order."""
    content: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        content[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _read_header(file: Path, descriptor: int) -> tuple[list[StoredTensor], dict[str, str]]:
    """The tensors in the order of their bytes, checked against the file's size, and what else the file says."""
    size = os.fstat(descriptor).st_size
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if size < 8 or length > min(size - 8, LARGEST_HEADER):
        raise _damaged(file, "a header", f"{size} bytes")
    try:
        content = json.loads(os.pread(descriptor, length, 8), object_pairs_hook=_without_duplicates)
        metadata = dict(content.pop("__metadata__", None) or {})
        spans = {name: [int(offset) for offset in entry["data_offsets"]] for name, entry in content.items()}
        tensors = [
            StoredTensor(
                name, file, DTYPES[entry["dtype"]], tuple(map(int, entry["shape"])), 8 + length + spans[name][0]
            )
            for name, entry in content.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
        raise _damaged(file, "a header in JSON with the tensors' types and places", f"{problem!s:.80}") from problem
    tensors.sort(key=lambda tensor: spans[tensor.name])
    end = 0
    for tensor in tensors:
        if spans[tensor.name] != [end, end + tensor.size_bytes]:
            raise _damaged(file, f'"{tensor.name}" at bytes {end} to {end + tensor.size_bytes}', spans[tensor.name])
        end += tensor.size_bytes
    if 8 + length + end != size:
        raise _damaged(file, f"{8 + length + end} bytes", f"{size} bytes")
    return tensors, metadata


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"{quoted({name for name in names if names.count(name) > 1})} twice")
    return dict(pairs)


def _damaged(file: Path, expected: str, got: object) -> CheckpointError:
    where = f"{file.parent.name}/{file.name}"
    return CheckpointError(
        f'"{where}" is damaged: expected {expected}, got {got}. Download or save the checkpoint again.'
    )
