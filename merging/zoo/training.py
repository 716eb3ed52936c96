"""What every run of an embedded pool shares: seeds of its own, and AdamW with a one-cycle learning rate."""

import math
import zlib
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def run_seed(seed: int, name: str) -> int:
    """The seed of one run, from the build's seed and the run's name."""
    return zlib.crc32(f"{seed}/{name}".encode())


def fit(
    model: Model,
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    *,
    generator: torch.Generator,
    epochs: int,
    peak_learning_rate: float,
    batch_size: int = 64,
    weight_decay: float = 0.01,
    gradient_norm: float = 1.0,
) -> Model:
    """Train on `count` rows by AdamW, a one-cycle learning rate and clipped gradients; returned in evaluation mode.

    `loss_of` gives the mean loss of a batch, named by the indices of its rows; `generator` draws their order.
    """
    model.train()
    steps = epochs * math.ceil(count / batch_size)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=peak_learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak_learning_rate, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(count, generator=generator).split(batch_size):
            loss = loss_of(batch)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learned, gradient_norm)
            optimiser.step()
            schedule.step()
    return model.eval()
