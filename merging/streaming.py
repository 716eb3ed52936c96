"""Merges checkpoints from file to file, a chunk of one tensor at a time: memory does not grow with the models."""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from merging.chunks import CHUNK, Chunks, Reporter, Source, as_source
from merging.errors import ExportError, StructureError
from merging.folders import replace_folder, require_space
from merging.headers import weight_files
from merging.merge import Combination, disagreement
from merging.parameters import check_same_structure
from merging.rules import RULES
from merging.scales import (
    SIZES,
    Size,
    check_fisher_shapes,
    check_fisher_values,
    fisher_scale,
    is_within,
    require_fishers,
    scale_of_sizes,
)
from merging.shards import write_shards
from merging.tensor_files import StoredTensor, TensorFiles
from merging.weights import check_base, checked_settings, require_plain

OnProgress = Callable[[float, str], None]
Names = Collection[str] | Callable[[str], bool]
Tensors = str | Path | Mapping[str, Tensor] | Source  # a folder, a safetensors file, tensors in memory, …


def merge_files(
    sources: Sequence[str | Path],
    output_folder: str | Path,
    rule: str = "fisher",
    *,
    on_progress: OnProgress | None = None,
    **settings: object,
) -> Path:
    """`merge_parameters` from safetensors files, or folders of them, into a new folder of such files.

    `settings` are the fields of `FileMerge`. The files are named and filled like the first source's, with an index if
    it has one, and appear whole or not at all. `on_progress` may raise `Cancelled`; nothing is left then.

    Raises: MergingError; ExportError if there is anything in the folder, or the disk is too small.
    """
    folder = Path(output_folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(
            f'"{folder}" cannot be written: expected a new or empty folder, got something else. Choose another place.'
        )
    with FileMerge(sources, rule, **settings) as merge:
        require_space(folder, merge.size_bytes)
        return replace_folder(folder, lambda temporary: merge.write(temporary, on_progress))


def exchange_body(source: str | Path, other: Source, folder: Path, *, on_progress: OnProgress | None = None) -> None:
    """Writes `source` into new files in `folder`, with the tensors that `other` has taken from there; the head stays."""
    chunks = Chunks(1, CHUNK)
    with TensorFiles(weight_files(Path(source))) as own:
        check_same_structure([other, {name: own[name] for name in own if name in other}])
        owners = {name: other if name in other else own for name in own}
        report = Reporter(on_progress, sum(tensor.numel() for tensor in own.values()))

        def parts(tensor: StoredTensor) -> Iterator[Tensor]:
            for span in chunks.spans(tensor.numel()):
                yield chunks.read_stored(owners[tensor.name], tensor.name, span)
                report(span[1], f"Writing {tensor.name}")

        write_shards(folder, own, [(tensor, owners[name][name].dtype) for name, tensor in own.items()], parts)


@dataclass(eq=False)
class FileMerge:
    """A merge from file to file, which `with` opens and checks as far as headers tell; settings as in `merge_parameters`.

    Numbers are computed in float64 and rounded to `dtype`, by default the first source's own dtype. By their names, tensors
    can be `averaged` by λ whatever the rule (buffers), `copied` from the first source, or `left_out` (heads). Tensors
    that are not floating point must agree. `chunk` is how many numbers of each model are in memory at a time.
    """

    sources: Sequence[Tensors]
    rule: str = "fisher"
    weights: Sequence[float] | None = None
    fishers: Sequence[Tensors] | None = None
    floor: float = 0.0
    normalise: str = "trace"
    zero_rule: str = "mean"
    base: Tensors | None = None
    dtype: torch.dtype | None = None
    averaged: Names = ()
    copied: Names = ()
    left_out: Names = ()
    chunk: int = CHUNK

    def __enter__(self) -> "FileMerge":
        settings = {name: getattr(self, name) for name in ("floor", "normalise", "zero_rule")}
        lambdas = checked_settings(len(self.sources), self.rule, self.weights, **settings)
        require_plain(self.rule)
        self._lambdas = torch.tensor(lambdas, dtype=torch.float64)
        with ExitStack() as opened:
            self._models = [_opened(source, opened) for source in self.sources]
            merged = self._check_models()
            self._ruled, self._fishers, self._base = {}, [], None
            if RULES[self.rule].needs_fisher:
                self._ruled = {name: one for name, one in merged.items() if not _is_among(name, self.averaged)}
                self._open_fishers(opened)
            self._opened = opened.pop_all()
        rows = (len(self._models), len(self._models), 1)
        self._values, self._curvature, self._at_base = (Chunks(count, self.chunk) for count in rows)
        self._summed = Chunks(1, 2 * self.chunk)
        return self

    def __exit__(self, *details: object) -> None:
        self._opened.close()

    @property
    def size_bytes(self) -> int:
        """What `write` will write, but for headers."""
        return sum(tensor.numel() * self._result_dtype(tensor).itemsize for tensor in self._kept())

    def write(self, folder: Path, on_progress: OnProgress | None = None) -> None:
        """Merges into new files in `folder`. Raises: MergingError, naming the tensor that cannot be merged."""
        scales = None
        sizes = [self._stored_sizes(fisher) for fisher in self._fishers]
        # Whose numbers nobody has looked at before they are merged.
        self._unchecked = [self.normalise == "none" and own is None for own in sizes]
        passes = sizes.count(None) if self.normalise != "none" else 0
        ruled = sum(tensor.numel() for tensor in self._ruled.values())
        report = Reporter(on_progress, passes * ruled + sum(tensor.numel() for tensor in self._kept()))
        if self._fishers:
            scales = [self._scale(position, own, report) for position, own in enumerate(sizes)]
        by_rule = Combination(self.rule, self._lambdas, self.floor, scales, self.zero_rule)
        by_weight = Combination("isotropic", self._lambdas)
        results = [(tensor, self._result_dtype(tensor)) for tensor in self._kept()]

        def parts(tensor: StoredTensor) -> Iterator[Tensor]:
            return self._parts(tensor, by_rule if tensor.name in self._ruled else by_weight, report)

        write_shards(folder, self._models[0], results, parts)

    def _check_models(self) -> dict[str, StoredTensor]:
        """The floating-point tensors that are merged. Raises: StructureError if models do not fit together."""
        merged = [{name: own[name] for name in own if not self._is_single(name)} for own in self._models]
        for name in check_same_structure(merged):
            types = {own[name].dtype for own in merged}
            if len(types) > 1 and not all(each.is_floating_point for each in types):
                raise disagreement(name, merged[0][name].dtype)
        return {name: tensor for name, tensor in merged[0].items() if tensor.is_floating_point()}

    def _open_fishers(self, opened: ExitStack) -> None:
        require_fishers(self.fishers, count=len(self._models))
        for position, fisher in enumerate(self.fishers, start=1):
            self._fishers.append(_opened(fisher, opened))
            check_fisher_shapes(self._ruled, self._fishers[-1], f"Fisher {position}")
        if self.zero_rule == "base":
            self._base = None if self.base is None else _opened(self.base, opened)
            check_base(self._ruled, self._base)

    def _is_single(self, name: str) -> bool:
        return _is_among(name, self.copied) or _is_among(name, self.left_out)

    def _kept(self) -> list[StoredTensor]:
        return [tensor for name, tensor in self._models[0].items() if not _is_among(name, self.left_out)]

    def _result_dtype(self, tensor: StoredTensor) -> torch.dtype:
        return self.dtype if self.dtype is not None and tensor.is_floating_point() else tensor.dtype

    def _stored_sizes(self, fisher: Source) -> list[Size] | None:
        """The sizes of the tensors that are merged, where the Fisher's file has them, all sound, and there is no floor."""
        try:
            stored = json.loads(getattr(fisher, "metadata", {})[SIZES])
            sizes = [Size(*map(float, stored[name])) for name in self._ruled]
        except (KeyError, TypeError, ValueError):
            return None
        return sizes if self.floor == 0 and all(size.is_sound for size in sizes) else None

    def _scale(self, position: int, sizes: list[Size] | None, report: "Reporter") -> float:
        """What a Fisher is divided by: from the sizes in its file, else by one pass over it, which also checks it."""
        if self.normalise == "none":
            return 1.0
        if sizes is not None:
            return scale_of_sizes(sizes, normalise=self.normalise)
        return fisher_scale(self._pieces(position, report), floor=self.floor, normalise=self.normalise)

    def _pieces(self, position: int, report: "Reporter") -> Iterator[Tensor]:
        for name, tensor in self._ruled.items():
            for span in self._summed.spans(tensor.numel()):
                piece = self._summed.read_stored(self._fishers[position], name, span)
                check_fisher_values(name, piece, f"Fisher {position + 1}")
                yield piece
                report(span[1], f"Summing Fisher {position + 1}")

    def _parts(self, tensor: StoredTensor, combination: Combination, report: "Reporter") -> Iterator[Tensor]:
        """The numbers of one result in order, each part valid until the next one."""
        name, is_merged = tensor.name, tensor.is_floating_point() and not self._is_single(tensor.name)
        for span in self._values.spans(tensor.numel()):
            if is_merged:
                result = self._rounded(tensor, self._merged(name, span, combination))
            else:
                result = self._agreed(tensor, span).to(self._result_dtype(tensor))
            yield result
            report(span[1], f"Merging {name}")

    def _rounded(self, tensor: StoredTensor, merged: Tensor) -> Tensor:
        """In the result's dtype. Raises: StructureError if that cannot hold it."""
        result = merged.to(self._result_dtype(tensor))
        # It lies between the models' finite numbers: only a narrower dtype can lose it.
        widest = max(torch.finfo(own[tensor.name].dtype).max for own in self._models)
        if torch.finfo(result.dtype).max < widest and not is_within(result, -math.inf):
            raise StructureError(
                f'"{tensor.name}" cannot be stored as {result.dtype}: expected finite numbers, got some beyond its range. '
                "Choose torch.float32."
            )
        return result

    def _merged(self, name: str, span: tuple[int, int], combination: Combination) -> Tensor:
        values = self._values.read(self._models, name, span)
        if combination.scales is None:
            return combination.of(name, values)
        curvature = self._curvature.read(self._fishers, name, span)
        for position, own in enumerate(curvature):
            if self._unchecked[position]:
                check_fisher_values(name, own, f"Fisher {position + 1}")
        base = None if self._base is None else self._at_base.read([self._base], name, span)[0]
        return combination.of(name, values, curvature, base)

    def _agreed(self, tensor: StoredTensor, span: tuple[int, int]) -> Tensor:
        """What is not merged, from the first model; unless it is copied, the others must have the same."""
        own = self._values.read_stored(self._models[0], tensor.name, span)
        for other in self._models[1:] if not self._is_single(tensor.name) else ():
            if not torch.equal(own, self._curvature.read_stored(other, tensor.name, span)):
                raise disagreement(tensor.name, tensor.dtype)
        return own


def _opened(source: Tensors, opened: ExitStack) -> Source:
    found = as_source(source)  # what came open stays open
    return opened.enter_context(found) if isinstance(found, TensorFiles) and found is not source else found


def _is_among(name: str, names: Names) -> bool:
    return names(name) if callable(names) else name in names
