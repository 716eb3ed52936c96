"""How the checkpoints of the digits-clip pool are trained: a tiny CLIP on captions, then its vision tower per task."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from merging.zero_shot import ZeroShotClassifier, zero_shot_text
from merging.zoo.clip_captions import (
    CAPTIONED_TASKS,
    DIGIT,
    LONGEST_CAPTION,
    MEDIA,
    CaptionedTask,
    Facts,
    caption,
    create_tokenizer,
)
from merging.zoo.digits_data import DigitRows
from merging.zoo.digits_training import Augmentation, augment, pixels_of
from merging.zoo.training import fit, run_seed

PROCESSOR = CLIPImageProcessorPil(
    size={"height": 16, "width": 16},
    resample=2,  # bilinear
    do_center_crop=False,
    do_convert_rgb=False,
    image_mean=[0.5],
    image_std=[0.5],
)


@dataclass(frozen=True)
class ClipRun:
    """Everything that decides one run, given its start and its rows; a run without a task learns from captions.

    `facts_share` of the captions of a run without a task speak of a task's label, the others name the digit.
    """

    name: str
    epochs: int
    peak_learning_rate: float
    augmentation: Augmentation
    task: CaptionedTask | None = None
    facts_share: float = 0.0
    inverted_share: float = 0.0


def create_clip(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """A CLIP with a vision tower of width 64 in 4 layers and a text tower of width 48 in 2."""
    vision = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    vision |= {"image_size": 16, "patch_size": 4, "num_channels": 1}
    text = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": LONGEST_CAPTION}
    text |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    width = {"projection_dim": 48}
    return CLIPModel(CLIPConfig(vision_config=vision | width, text_config=text | width, **width))


def train_clip(run: ClipRun, rows: DigitRows, *, seed: int) -> CLIPModel:
    """A CLIP from scratch on captioned images: symmetric cross entropy against all captions of the batch that are true.

    The batch holds several images of one digit, so that a caption is often true of more than its own image.
    """
    own_seed = run_seed(seed, run.name)
    generator = torch.Generator().manual_seed(own_seed)
    tokenizer, facts = create_tokenizer(), Facts.of(DIGIT, *CAPTIONED_TASKS.values())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(own_seed)
        clip = create_clip(tokenizer)
    pixels, digits = pixels_of(rows), torch.as_tensor(rows.digits)

    def loss_of(batch: Tensor) -> Tensor:
        images = augment(pixels[batch], run.augmentation, generator=generator)
        is_inverted = torch.rand(len(batch), generator=generator) < run.inverted_share
        images = torch.where(is_inverted[:, None, None, None], -images, images)
        chosen = drawn_facts(facts, digits[batch], run.facts_share, generator=generator)
        media = torch.randint(len(MEDIA), (len(batch),), generator=generator)
        flags = is_inverted.tolist()
        texts = [caption(facts.texts[f], MEDIA[m], is_inverted=i) for f, m, i in zip(chosen, media, flags, strict=True)]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        output = clip(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=images
        ).logits_per_image
        # (images, captions): the fact holds, and the ink is as the caption says.
        true = facts.truth[chosen][:, digits[batch]].T & (is_inverted[:, None] == is_inverted[None, :])
        return (soft_cross_entropy(output, true) + soft_cross_entropy(output.T, true.T)) / 2

    return fit(
        clip, loss_of, len(digits), generator=generator, epochs=run.epochs, peak_learning_rate=run.peak_learning_rate
    )


def drawn_facts(facts: Facts, digits: Tensor, share: float, *, generator: torch.Generator) -> Tensor:
    """One true fact of each digit: with probability `share` a label of a task, else its name."""
    weights = facts.truth[:, digits].T.float()
    names = weights[:, : len(DIGIT.labels)]
    tasks = weights[:, len(DIGIT.labels) :]
    says_more = torch.rand(len(digits), generator=generator) < share
    weights = torch.cat([names * ~says_more[:, None], tasks * says_more[:, None]], dim=1)
    return torch.multinomial(weights, 1, generator=generator)[:, 0]


def soft_cross_entropy(logits: Tensor, true: Tensor) -> Tensor:
    """Against equal probabilities for everything that is true."""
    targets = true / true.sum(1, keepdim=True)
    return -(targets * logits.log_softmax(-1)).sum(1).mean()


def with_zero_shot_head(clip: CLIPModel, task: CaptionedTask) -> ZeroShotClassifier:
    """The CLIP's vision tower with the head that its text tower gives for a task."""
    text = zero_shot_text(clip, create_tokenizer(), names=task.labels, templates=task.templates)
    head = (clip.visual_projection.weight.detach().clone(), text, clip.logit_scale.detach().clone())
    return ZeroShotClassifier(clip.vision_model, *head).eval()


def train_tower(run: ClipRun, rows: DigitRows, *, start: CLIPModel, seed: int) -> ZeroShotClassifier:
    """The vision tower of `start`, fine-tuned for the run's task under its zero-shot head, which stays as it is."""
    generator = torch.Generator().manual_seed(run_seed(seed, run.name))
    model = with_zero_shot_head(start, run.task)
    pixels, labels = pixels_of(rows), torch.as_tensor(run.task.source.labels_of(rows.digits))

    def loss_of(batch: Tensor) -> Tensor:
        images = augment(pixels[batch], run.augmentation, generator=generator)
        return nn.functional.cross_entropy(model(pixel_values=images).logits, labels[batch])

    return fit(
        model, loss_of, len(labels), generator=generator, epochs=run.epochs, peak_learning_rate=run.peak_learning_rate
    )


@torch.no_grad()
def accuracy(model: ZeroShotClassifier, task: CaptionedTask, rows: DigitRows) -> float:
    """The share of rows whose most probable label is the right one."""
    predicted = model(pixel_values=pixels_of(rows)).logits.argmax(dim=-1).numpy()
    return float(np.mean(predicted == task.source.labels_of(rows.digits)))


def save(model: nn.Module, folder: Path) -> None:
    """Write config.json, model.safetensors and preprocessor_config.json; a full CLIP's tokenizer with them."""
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    if isinstance(model, CLIPModel):
        create_tokenizer().save_pretrained(folder)
