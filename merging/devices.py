"""The devices that this machine can merge and estimate on."""

import torch

from merging.errors import DeviceError, require_choice


def available_devices() -> list[str]:
    """The devices of this machine, the fastest first; `cpu` is always there."""
    devices = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def resolve_device(device: str) -> str:
    """`auto` is the fastest device there is. Raises: DeviceError if the machine does not have the device."""
    devices = available_devices()
    if device == "auto":
        return devices[0]
    return require_choice("device", device, devices, error=DeviceError)
