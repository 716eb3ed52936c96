"""How many examples fit, and what to do when they do not."""

import math

import psutil
import torch
from torch import Tensor, nn

# What one batch keeps for its backward pass on a CPU: more makes nothing faster there, and stopping slower.
CPU_ACTIVATIONS_BYTES = 2**30
# What torch and the libraries below it say; cuBLAS and cuDNN allocate for themselves.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
MOST_EXAMPLES = {"cpu": 64, "cuda": 256}


class MemoryWarning(UserWarning):
    """Memory ran out, and what was asked for is done in a slower way: as right."""


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether a device or the machine had no more memory to give."""
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(sign in str(problem) for sign in SIGNS)


def free_bytes(device: torch.device) -> int:
    """What a batch may take: half of the memory that is free on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + reserved) // 2
    return min(psutil.virtual_memory().available // 2, CPU_ACTIVATIONS_BYTES)


def fitting_examples(bytes_each: float, budget_bytes: float, *, most: int) -> int:
    """How many examples of that size one batch may have: a power of two, so that a little more memory changes nothing."""
    return 2 ** int(math.log2(max(1.0, min(most, budget_bytes / max(1.0, bytes_each)))))


class Kept:
    """Counts the bytes of tensors that are held for a backward pass, each storage once, parameters left out."""

    def __init__(self, model: nn.Module):
        self._ignored = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._sizes: dict[int, int] = {}

    def count(self, tensor: Tensor) -> Tensor:
        """Counts it and gives it back."""
        if type(tensor) in (Tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._ignored:
                self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def during_forward(self) -> torch.autograd.graph.saved_tensors_hooks:
        """A context in which whatever autograd saves is counted."""
        return torch.autograd.graph.saved_tensors_hooks(self.count, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """All of them together."""
        return sum(self._sizes.values())
