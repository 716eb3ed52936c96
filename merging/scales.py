"""What a Fisher is divided by before it is used, and whether it can be used at all."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from merging.errors import FisherError, quoted

NORMALISATIONS = ("trace", "l2", "none")
SIZES = "sizes"  # of its tensors, in the metadata of a Fisher's file


def fisher_scales(
    fishers: Sequence[Mapping[str, Tensor]], names: Sequence[str], *, floor: float, normalise: str
) -> list[float]:
    """What each model's floored Fisher is divided by, over all merged parameters; 1 where it is zero everywhere."""
    return [
        fisher_scale((fisher[name] for name in names if name in fisher), floor=floor, normalise=normalise)
        for fisher in fishers
    ]


def fisher_scale(pieces: Iterable[Tensor], *, floor: float, normalise: str) -> float:
    """What one floored Fisher is divided by, from its tensors or parts of them; 1 where it is zero everywhere."""
    widest = (_widest(piece) for piece in pieces if piece.numel())
    floored = (tensor.clamp_min(floor) for tensor in widest) if floor > 0 else widest
    if normalise == "none":
        return 1.0
    if normalise == "trace":
        scale = math.fsum(float(tensor.sum()) for tensor in floored)
        return scale if scale > 0 else 1.0
    return scale_of_sizes((size_of(tensor) for tensor in floored), normalise=normalise)


class Size(NamedTuple):
    """A tensor's sum, smallest and largest entry, and its norm in units of the largest (a square may be 0 or infinite)."""

    total: float
    least: float
    peak: float
    norm: float

    @property
    def is_sound(self) -> bool:
        """Whether all entries are finite and ≥ 0."""
        return self.least >= 0 and self.peak < math.inf


def size_of(tensor: Tensor) -> Size:
    """The size of a Fisher's tensor, or of a part of it, summed in float64."""
    if tensor.numel() == 0:
        return Size(0.0, 0.0, 0.0, 0.0)
    wide = _widest(tensor)
    least, peak = (float(value) for value in torch.aminmax(wide))
    return Size(float(wide.sum()), least, peak, float(torch.linalg.vector_norm(wide / peak)) if peak else 0.0)


def scale_of_sizes(sizes: Iterable[Size], *, normalise: str) -> float:
    """What a Fisher without a floor is divided by, from the sizes of its tensors; 1 where it is zero everywhere."""
    if normalise == "trace":
        scale = math.fsum(size.total for size in sizes)
    else:
        sizes = [size for size in sizes if size.peak]
        largest = max((size.peak for size in sizes), default=0.0)
        scale = largest * math.hypot(*(size.norm * (size.peak / largest) for size in sizes))
    return scale if scale > 0 else 1.0


def check_fishers(
    parameters: Mapping[str, Tensor], fishers: Sequence[Mapping[str, Tensor]] | None, *, count: int
) -> None:
    """Raises: FisherError unless there is one Fisher for each model, of its shapes, finite and ≥ 0."""
    require_fishers(fishers, count=count)
    for position, fisher in enumerate(fishers, start=1):
        check_fisher(parameters, fisher, f"Fisher {position}")


def require_fishers(fishers: Sequence[object] | None, *, count: int) -> None:
    """Raises: FisherError unless there is one for each model."""
    if fishers is None or len(fishers) != count:
        raise FisherError(
            f"Fisher merging needs the models' Fishers: expected {count}, got {len(fishers or [])}. "
            'Estimate them with merging.diagonal_fisher, or choose rule="isotropic".'
        )


def check_fisher(parameters: Mapping[str, Tensor], fisher: Mapping[str, Tensor], what: str) -> None:
    """Raises: FisherError unless `fisher` has the parameters' names and shapes and is finite and ≥ 0."""
    for name in check_fisher_shapes(parameters, fisher, what):
        check_fisher_values(name, fisher[name], what)


def check_fisher_shapes(parameters: Mapping[str, Tensor], fisher: Mapping[str, Tensor], what: str) -> list[str]:
    """The names of the parameters that need a Fisher. Raises: FisherError unless `fisher` has them in their shapes."""
    floating = [name for name, tensor in parameters.items() if tensor.is_floating_point()]
    missing = [name for name in floating if name not in fisher]
    if missing:
        raise FisherError(
            f"{what} does not belong to this model: expected a tensor for every parameter, got none for "
            f"{quoted(missing)}. Estimate the Fisher again for this checkpoint."
        )
    for name in floating:
        tensor = fisher[name]
        if tuple(tensor.shape) != tuple(parameters[name].shape):
            raise FisherError(
                f'{what} does not belong to this model: expected shape {list(parameters[name].shape)} for "{name}", '
                f"got {list(tensor.shape)}. Estimate the Fisher again for this checkpoint."
            )
    return floating


def check_fisher_values(name: str, tensor: Tensor, what: str) -> None:
    """Raises: FisherError unless the Fisher's tensor, or a part of it, is finite and ≥ 0."""
    if not is_within(tensor, 0.0):
        raise FisherError(
            f'{what} cannot be used: expected finite numbers of 0 or more, got others in "{name}". '
            "Estimate the Fisher again."
        )


def is_within(tensor: Tensor, lowest: float) -> bool:
    """Whether all values are finite and at least `lowest` (above it, where it is −∞); in one pass, NaN included."""
    if tensor.numel() == 0:
        return True
    smallest, largest = (float(value) for value in torch.aminmax(tensor))
    return largest < math.inf and (smallest >= lowest if lowest > -math.inf else smallest > lowest)


def _widest(tensor: Tensor) -> Tensor:
    """In float64; on a device without it, on the CPU."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
