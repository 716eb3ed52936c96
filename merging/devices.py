"""The devices that this machine can merge and estimate on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn

from merging.errors import DeviceError, require_choice

ZERO_GPU = "SPACES_ZERO_GPU"
_LENT: ContextVar[bool] = ContextVar("lent", default=False)


def is_zero_gpu() -> bool:
    """Whether this runs on ZeroGPU, which lends its GPU to one call at a time, in a process of its own."""
    return os.environ.get(ZERO_GPU, "").lower() in ("1", "t", "true")


@contextmanager
def lent() -> Iterator[None]:
    """Inside, the GPU that is lent may be used."""
    token = _LENT.set(True)
    try:
        yield
    finally:
        _LENT.reset(token)


def available_devices() -> list[str]:
    """The devices of this machine, the fastest first; `cpu` is always there."""
    # ZeroGPU tells every process that there is a GPU.
    devices = ["cuda"] if torch.cuda.is_available() and (_LENT.get() or not is_zero_gpu()) else []
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def resolve_device(device: str) -> str:
    """`auto` is the fastest device there is. Raises: DeviceError if the machine does not have the device."""
    devices = available_devices()
    if device == "auto":
        return devices[0]
    return require_choice("device", device, devices, error=DeviceError)


# Below this, one thread is as fast as two on a quiet machine and 40 times faster beside other work (measured with
# 140,000 parameters): its operations take less time than it takes to wake another thread.
SMALL_PARAMETERS = 2_000_000


def fits_one_thread(model: nn.Module) -> bool:
    """Whether a model is on the CPU and so small that a second thread is better spent on another model."""
    tensors = list(model.parameters())
    small = sum(tensor.numel() for tensor in tensors) < SMALL_PARAMETERS
    return small and all(tensor.device.type == "cpu" for tensor in tensors)


@contextmanager
def fitting_threads(model: nn.Module) -> Iterator[None]:
    """One thread for a small model on the CPU, as many as before for any other; restored afterwards."""
    before = torch.get_num_threads()
    if before == 1 or not fits_one_thread(model):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
