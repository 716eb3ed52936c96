"""What to do when a device runs out of memory: halve the batch, then go on on the CPU, and say so."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from merging.errors import DeviceError
from merging.gradients.memory import MemoryWarning, is_out_of_memory
from merging.gradients.per_example import rows_of

CPU = "cpu"
Result = TypeVar("Result")


class OneTooMany(MemoryError):
    """Not even one example fits."""


@dataclass(eq=False)
class DeviceMemory:
    """What was learnt of a device's memory; shared by all work on the same models, so that nothing fails twice.

    Safe to use from several threads. `rows` are the most examples at once by device, where memory has run out.
    """

    device: str = CPU
    rows: dict[str, int] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What is done otherwise than asked for, in sentences."""
        return list(self._told.values())

    def or_on_cpu(self, work: Callable[[str], Result], what: str) -> Result:
        """`work(device)`, or `work("cpu")` where the device's memory ran out, now or before for the same `what`.

        Raises: DeviceError if the CPU's own memory runs out; whatever else `work` raises.
        """
        if self.device != CPU and what not in self._told:
            done, result = _attempt(lambda: work(self.device))
            if done:
                return result
            self.tell(what, f"The memory of {self.device} ran out: {what} is done on the CPU, which takes longer.")
        try:
            return work(CPU)
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
        raise DeviceError(
            f"{what[:1].upper()}{what[1:]} cannot be done: expected enough memory on the CPU, got none left. "
            "Use shorter inputs, fewer or smaller checkpoints, or a machine with more memory."
        )

    def in_parts(
        self, compute: Callable[[dict[str, object]], list[Tensor]], inputs: Mapping[str, object], device: str
    ) -> list[Tensor]:
        """What `compute` makes of a batch, one row per example, in as few parts as memory allows.

        Raises: OneTooMany if one example does not fit.
        """
        count = next(len(value) for value in inputs.values() if isinstance(value, Tensor) and value.dim() > 0)
        found, start = [], 0
        while start < count:
            size = min(self.rows.get(device, count), count - start)
            part = dict(inputs) if size == count else rows_of(inputs, slice(start, start + size))
            done, results = _attempt(lambda part=part: compute(part))
            if done:
                found.append(results)
                start += size
            elif size == 1:
                raise OneTooMany
            else:
                self.rows[device] = size // 2
                self.tell(device, f"Memory ran out: examples are evaluated at most {size // 2} at a time.")
        return found[0] if len(found) == 1 else [torch.cat(parts) for parts in zip(*found, strict=True)]

    def tell(self, what: str, sentence: str) -> None:
        """Notes, and warns, that something is done otherwise than asked for: one sentence for each `what`."""
        self._told[what] = sentence
        warnings.warn(sentence, MemoryWarning, stacklevel=3)


def cpu_copies(models: Sequence[nn.Module]) -> list[nn.Module]:
    """The models with tensors of their own on the CPU, never two copies on their device; what they share stays shared."""
    memo: dict[int, object] = {}
    for model in models:
        for parameter in model.parameters():
            own = parameter.detach().to(CPU, copy=True)
            memo[id(parameter)] = nn.Parameter(own, requires_grad=parameter.requires_grad)
        memo |= {id(buffer): buffer.detach().to(CPU, copy=True) for buffer in model.buffers()}
    return [copy.deepcopy(model, memo) for model in models]


def _attempt(work: Callable[[], Result]) -> tuple[bool, Result | None]:
    """Whether memory sufficed, and the result. What the failed attempt held is free again when this returns.

    A message to the user that memory ran out, such as that of an estimate, counts, too.
    """
    try:
        return True, work()
    except Exception as problem:
        if not is_out_of_memory(problem) and not is_out_of_memory(problem.__cause__):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False, None
