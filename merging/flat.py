"""Small models merged as one long tensor: dozens of operations in place of thousands, which take longer than the sums.

Beside other threads every single operation may also wait for Python's lock. What comes out is what `merge_parameters`
gives, bit for bit.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from merging.errors import StructureError
from merging.merge import Combination, OnProgress
from merging.parameters import check_same_structure
from merging.rules import RULES
from merging.scales import check_fishers, fisher_scales
from merging.weights import check_base, checked_settings

# Of all models together. Where there are more, the sums themselves take the time.
MOST_NUMBERS = 4_000_000
KEPT_LAYOUTS = 3


def flat_models(
    models: Sequence[Mapping[str, Tensor]], fishers: Sequence[Mapping[str, Tensor]] | None, device: str
) -> "FlatModels | None":
    """The models laid end to end, where they are small, of float32 alone, and the device has float64; else None."""
    tensors = [tensor for model in models for tensor in model.values()]
    is_small = sum(map(Tensor.numel, tensors)) <= MOST_NUMBERS
    fits = is_small and device != "mps" and all(one.dtype == torch.float32 for one in tensors)
    return FlatModels(models, fishers, device) if fits else None


class Layout(NamedTuple):
    """Tensors laid end to end, P numbers of each of M models: values (M, P) and Fishers (M, P), as they are stored."""

    names: list[str]
    values: Tensor
    fishers: Tensor | None


class FlatModels:
    """The float32 parameters of M models, and their Fishers; safe to use from several threads.

    Where none of the models with λ > 0 has a Fisher for a coordinate, `merge_parameters` sums the tensor that holds it in
    another way: such tensors are merged apart.
    """

    def __init__(
        self, models: Sequence[Mapping[str, Tensor]], fishers: Sequence[Mapping[str, Tensor]] | None, device: str
    ) -> None:
        """Raises: StructureError where `merge_parameters` does."""
        self._models, self._fishers, self._device = models, fishers, torch.device(device)
        self._names = check_same_structure(models)
        self._lock = threading.Lock()
        self._layouts: dict[tuple[bool, ...], Layout] = {}
        self._scales: dict[tuple[float, str], list[float]] = {}

    def size_bytes(self) -> int:
        """The memory that is taken beside the models."""
        with self._lock:
            kept = {id(part): part for layout in self._layouts.values() for part in layout[1:] if part is not None}
        return sum(part.nbytes for part in kept.values())

    def merge(
        self,
        rule: str,
        weights: Sequence[float],
        *,
        base: Mapping[str, Tensor] | None = None,
        on_progress: OnProgress | None = None,
        **settings: float | str,
    ) -> dict[str, Tensor]:
        """What `merge_parameters` gives for its `floor`, `normalise` and `zero_rule`; raises what it raises."""
        lambdas = checked_settings(len(self._models), rule, weights, **settings)
        needs_fisher = RULES[rule].needs_fisher
        of_base = base if needs_fisher and settings["zero_rule"] == "base" else None
        if needs_fisher and settings["zero_rule"] == "base":
            check_base(self._models[0], base)
        speaking = tuple(weight > 0 for weight in lambdas) if needs_fisher else ()
        with self._lock:
            layout = self._laid(speaking, settings["floor"])
            scales = self._scaled(settings["floor"], settings["normalise"]) if needs_fisher else None
        along = torch.tensor(lambdas, dtype=torch.float64, device=self._device)
        combination = Combination(rule, along, settings["floor"], scales, settings["zero_rule"])
        found = self._together(layout, combination) if layout.names else {}
        return {name: found[name] if name in found else self._apart(name, combination, of_base) for name in self._names}

    def _together(self, layout: Layout, combination: Combination) -> dict[str, Tensor]:
        fishers = None if layout.fishers is None else layout.fishers.to(torch.float64, copy=True)  # it is overwritten
        try:
            merged = combination.of("", layout.values.double(), fishers).float()
        except StructureError:
            return {}  # some number is not finite: one tensor after the other tells which
        shapes = [self._models[0][name].shape for name in layout.names]
        parts = merged.split([shape.numel() for shape in shapes])
        return {name: part.view(shape) for name, part, shape in zip(layout.names, parts, shapes, strict=True)}

    def _apart(self, name: str, combination: Combination, base: Mapping[str, Tensor] | None) -> Tensor:
        fishers = self._stacked([name], self._fishers).double() if combination.scales is not None else None
        shape = self._models[0][name].shape
        own = None if base is None else base[name].to(self._device, torch.float64).reshape(-1)
        return combination.of(name, self._stacked([name], self._models).double(), fishers, own).float().view(shape)

    def _laid(self, speaking: tuple[bool, ...], floor: float) -> Layout:
        """The tensors in which each coordinate has a Fisher of a model with λ > 0; all of them without Fishers."""
        key = (*speaking, floor > 0)
        if key not in self._layouts:
            while len(self._layouts) >= KEPT_LAYOUTS:
                self._layouts.pop(next(iter(self._layouts)))
            if speaking:
                check_fishers(self._models[0], self._fishers, count=len(self._models))
            voices = [fisher for fisher, speaks in zip(self._fishers or [], speaking, strict=False) if speaks]
            names = [name for name in self._names if not speaking or floor > 0 or _all_spoken_for(name, voices)]
            fishers = self._stacked(names, self._fishers) if speaking else None
            alike = next((layout.values for layout in self._layouts.values() if layout.names == names), None)
            values = self._stacked(names, self._models) if alike is None else alike
            self._layouts[key] = Layout(names, values, fishers)
        return self._layouts[key]

    def _stacked(self, names: Sequence[str], owners: Sequence[Mapping[str, Tensor]]) -> Tensor:
        rows = [torch.cat([owner[name].reshape(-1) for name in names] or [torch.empty(0)]) for owner in owners]
        return torch.stack([row.to(self._device) for row in rows])

    def _scaled(self, floor: float, normalise: str) -> list[float]:
        key = (floor, normalise)
        if key not in self._scales:
            while len(self._scales) >= KEPT_LAYOUTS:
                self._scales.pop(next(iter(self._scales)))
            self._scales[key] = fisher_scales(self._fishers, self._names, floor=floor, normalise=normalise)
        return self._scales[key]


def _all_spoken_for(name: str, fishers: Sequence[Mapping[str, Tensor]]) -> bool:
    return bool(torch.stack([fisher[name] > 0 for fisher in fishers]).any(0).all())
