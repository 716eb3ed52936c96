"""Parts of a tensor of several models, read one after the other into the same few buffers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from merging.errors import CheckpointError
from merging.headers import weight_files
from merging.tensor_files import DTYPES, StoredTensor, TensorFiles

# Numbers of each model at a time: with two models and their Fishers all buffers together stay in a second cache of 2 MB.
# Half as many cost a tenth more in calls; 16,384 to 49,152 are as fast.
CHUNK = 16_384
REPORTED = 1 << 20  # numbers: a report, and a chance to cancel, about every 10 ms
OnProgress = Callable[[float, str], None]


class TensorsInMemory(Mapping[str, Tensor]):
    """Named tensors that are read like those in files."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def read(self, name: str, start: int, view: memoryview) -> None:
        """Fills `view`, a view of bytes, with the tensor's numbers from `start` on."""
        flat = self._tensors[name].reshape(-1).view(torch.uint8).numpy()
        begin = start * self._tensors[name].itemsize
        view[:] = memoryview(flat)[begin : begin + len(view)]


class Renamed(Mapping[str, object]):
    """A source under other names: `names` says for each new name which one it has in the source."""

    def __init__(self, source: "Source", names: Mapping[str, str]):
        self._source = source
        self._names = {new: old for new, old in names.items() if old in source}

    def __getitem__(self, name: str) -> StoredTensor | Tensor:
        return self._source[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, name: str, start: int, view: memoryview) -> None:
        """Fills `view`, a view of bytes, with the tensor's numbers from `start` on."""
        self._source.read(self._names[name], start, view)


Source = TensorFiles | TensorsInMemory | Renamed


def as_source(source: str | Path | Mapping[str, Tensor] | Source) -> Source:
    """Opens a safetensors file or a checkpoint's folder, or wraps tensors in memory. Raises: CheckpointError."""
    if isinstance(source, Source):
        return source
    if isinstance(source, Mapping):
        return TensorsInMemory(source)
    path = Path(source).expanduser()
    files = weight_files(path) if path.is_dir() else [path]
    if not files:
        raise CheckpointError(
            f'"{path.name}" cannot be opened: expected weights in safetensors, got none. '
            "Save the model again with save_pretrained."
        )
    return TensorFiles(files)


class Chunks:
    """Room for `length` numbers of each of `models` models in float64, used again and again."""

    def __init__(self, models: int, length: int):
        self.length = length
        self._numbers = torch.empty(models, length, dtype=torch.float64)
        self._rows = self._numbers.unbind()
        # As they stand in the file; the same memory for every dtype.
        stored = torch.empty(8 * length, dtype=torch.uint8)
        self._bytes = memoryview(stored.numpy())
        self._stored = {dtype: stored.view(dtype)[:length] for dtype in DTYPES.values()}

    def spans(self, count: int) -> Iterator[tuple[int, int]]:
        """Start and length of each part of a tensor of `count` numbers."""
        for start in range(0, count, self.length):
            yield start, min(self.length, count - start)

    def read(self, sources: Sequence[Source], name: str, span: tuple[int, int]) -> Tensor:
        """One part of a tensor from every source, (M, count), valid until the next call."""
        count = span[1]
        for row, source in zip(self._rows, sources, strict=True):
            stored = self.read_stored(source, name, span)
            (row if count == self.length else row[:count]).copy_(stored)
        return self._numbers if count == self.length else self._numbers[:, :count]

    def read_stored(self, source: Source, name: str, span: tuple[int, int]) -> Tensor:
        """One part of a tensor in its own dtype, valid until the next call."""
        start, count = span
        dtype = source[name].dtype
        source.read(name, start, self._bytes[: count * dtype.itemsize])
        return self._stored[dtype] if count == self.length else self._stored[dtype][:count]


class Reporter:
    """Turns numbers done into fractions, not too often."""

    def __init__(self, on_progress: OnProgress | None, total: int):
        self._on_progress, self._total = on_progress, max(total, 1)
        self._done = self._told = 0

    def __call__(self, count: int, text: str) -> None:
        self._done += count
        if self._on_progress and (self._done - self._told >= REPORTED or self._done == self._total):
            self._told = self._done
            self._on_progress(self._done / self._total, text)
