"""How one checkpoint of the digits pool is trained: architecture, augmentation, optimiser, saving."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from merging.zoo.digits_data import DigitRows, DigitTask
from merging.zoo.training import fit, run_seed

PROCESSOR = ViTImageProcessorPil(
    size={"height": 16, "width": 16},
    resample=2,  # bilinear
    image_mean=[0.5],
    image_std=[0.5],
)
BLACK = -1.0  # of a pixel after the processor


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes of each training image, all uniform unless said otherwise."""

    rotation_degrees: float = 12.0
    scale: float = 0.12
    shift: float = 0.15  # of half the width
    noise: float = 0.1  # standard deviation, of pixels in [-1, 1]
    noise_is_drawn: bool = False  # each image draws its own standard deviation between 0 and `noise`
    inverted_share: float = 0.0
    blurred_share: float = 0.0
    blur_radius: float = 2.0  # pixels of the 16


@dataclass(frozen=True)
class TrainingRun:
    """Everything that decides one fine-tuning, given its start and its rows."""

    name: str
    task: str
    epochs: int
    peak_learning_rate: float
    augmentation: Augmentation | None = Augmentation()
    keeps_head: bool = False
    batch_size: int = 64
    weight_decay: float = 0.01
    gradient_norm: float = 1.0


def pixels_of(rows: DigitRows) -> Tensor:
    """The images as the saved processor hands them to a model: (rows, 1, 16, 16) in [-1, 1]."""
    return PROCESSOR(list(rows.images[..., None]), return_tensors="pt", input_data_format="channels_last")[
        "pixel_values"
    ]


def create_model(task: DigitTask, *, start: nn.Module | None, keeps_head: bool) -> ViTForImageClassification:
    """A ViT for `task` with the body of `start`, and also its head if `keeps_head`; the rest from torch's global seed.

    A new head on an old body starts with logits of about unit variance (the body ends in a layer norm).
    """
    config = ViTConfig(
        image_size=16,
        patch_size=4,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(task.labels)),
        label2id={label: index for index, label in enumerate(task.labels)},
    )
    model = ViTForImageClassification(config)
    if start is not None:
        kept = {name: value for name, value in start.state_dict().items() if keeps_head or name.startswith("vit.")}
        model.load_state_dict(kept, strict=False)
        if not keeps_head:
            nn.init.normal_(model.classifier.weight, std=config.hidden_size**-0.5)
    return model


def train(
    run: TrainingRun, task: DigitTask, rows: DigitRows, *, start: nn.Module | None, seed: int
) -> ViTForImageClassification:
    """Train from `start` (or from scratch) by AdamW, a one-cycle learning rate and clipped gradients.

    Order, augmentation and fresh weights follow from `seed` and the run's name; the global generator stays untouched.
    """
    own_seed = run_seed(seed, run.name)
    generator = torch.Generator().manual_seed(own_seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(own_seed)
        model = create_model(task, start=start, keeps_head=run.keeps_head)
    pixels, labels = pixels_of(rows), torch.as_tensor(task.labels_of(rows.digits))

    def loss_of(batch: Tensor) -> Tensor:
        images = augment(pixels[batch], run.augmentation, generator=generator)
        return nn.functional.cross_entropy(model(pixel_values=images).logits, labels[batch])

    settings = {"epochs": run.epochs, "peak_learning_rate": run.peak_learning_rate, "batch_size": run.batch_size}
    settings |= {"weight_decay": run.weight_decay, "gradient_norm": run.gradient_norm}
    return fit(model, loss_of, len(labels), generator=generator, **settings)


def augment(pixels: Tensor, augmentation: Augmentation | None, *, generator: torch.Generator) -> Tensor:
    """Blur, rotate, scale, move, invert and roughen every image of the batch by its own draw."""
    if augmentation is None:
        return pixels

    def draw() -> Tensor:
        return torch.rand(len(pixels), 1, 1, 1, generator=generator)

    if augmentation.blurred_share:
        kernel = gaussian_kernel(augmentation.blur_radius)
        blurred = nn.functional.conv2d(pixels - BLACK, kernel, padding=kernel.shape[-1] // 2) + BLACK
        pixels = torch.where(draw() < augmentation.blurred_share, blurred, pixels)
    pixels = move(pixels, augmentation, generator=generator)
    pixels = torch.where(draw() < augmentation.inverted_share, -pixels, pixels)
    deviation = augmentation.noise * (draw() if augmentation.noise_is_drawn else 1.0)
    return pixels + deviation * torch.randn(pixels.shape, generator=generator)


def move(pixels: Tensor, augmentation: Augmentation, *, generator: torch.Generator) -> Tensor:
    """Rotate, scale and shift every image by its own affine map; what comes in from outside is black."""
    draws = 2 * torch.rand(4, len(pixels), generator=generator) - 1
    angle = draws[0] * math.radians(augmentation.rotation_degrees)
    scale = 1 + draws[1] * augmentation.scale
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    first_row = torch.stack([cosine, -sine, draws[2] * augmentation.shift], dim=1)
    second_row = torch.stack([sine, cosine, draws[3] * augmentation.shift], dim=1)
    maps = torch.stack([first_row, second_row], dim=1)
    grid = nn.functional.affine_grid(maps, list(pixels.shape), align_corners=False)
    return nn.functional.grid_sample(pixels - BLACK, grid, align_corners=False) + BLACK


def gaussian_kernel(radius: float) -> Tensor:
    """A normalised square Gaussian (1, 1, size, size) that reaches to twice its `radius` in pixels."""
    offsets = torch.arange(-round(2 * radius), round(2 * radius) + 1)
    profile = torch.exp(-0.5 * (offsets / radius) ** 2)
    kernel = torch.outer(profile, profile)
    return (kernel / kernel.sum())[None, None]


@torch.no_grad()
def accuracy(model: nn.Module, task: DigitTask, rows: DigitRows) -> float:
    """The share of rows whose most probable label is the right one."""
    predicted = model(pixel_values=pixels_of(rows)).logits.argmax(dim=-1).numpy()
    return float(np.mean(predicted == task.labels_of(rows.digits)))


def save(model: ViTForImageClassification, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json."""
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
