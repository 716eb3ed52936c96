"""Safetensors files written a part of a tensor at a time, in the shards of a checkpoint that is there."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from merging import hub
from merging.tensor_files import StoredTensor, TensorFiles, header_bytes


def write_shards(
    folder: Path,
    like: TensorFiles,
    results: Sequence[tuple[StoredTensor, torch.dtype]],
    parts: Callable[[StoredTensor], Iterable[Tensor]],
) -> None:
    """Writes files named like those of `like`, with an index if it has one.

    `results` are those tensors of `like` that are written, each with its dtype, `parts` gives the numbers of one in order.
    """
    for file, own in groupby(results, key=lambda result: result[0].file):
        own = list(own)
        with (folder / file.name).open("xb", buffering=0) as output:
            about = [(tensor.name, dtype, tensor.shape) for tensor, dtype in own]
            _write(output.fileno(), memoryview(header_bytes(about, {"format": "pt"})))
            for tensor, _ in own:
                for part in parts(tensor):
                    _write(output.fileno(), memoryview(part.contiguous().view(torch.uint8).numpy()))
    _write_index(folder, like, results)


def _write_index(folder: Path, like: TensorFiles, results: Sequence[tuple[StoredTensor, torch.dtype]]) -> None:
    index = like.files[0].with_name(hub.INDEX)
    if len(like.files) == 1 and not index.is_file():
        return
    about = json.loads(index.read_text(encoding="utf-8")).get("metadata", {}) if index.is_file() else {}
    about = {**about, "total_size": sum(tensor.numel() * dtype.itemsize for tensor, dtype in results)}
    content = {"metadata": about, "weight_map": {tensor.name: tensor.file.name for tensor, _ in results}}
    (folder / hub.INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]
