"""CLIP's vision tower as a classifier: a head computed from what the text tower says about the classes' names."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from merging.errors import TaskError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
# Filled templates that pass the text tower at once.
TEXT_BATCH = 256


class ZeroShotClassifier(nn.Module):
    """Logits exp(s) · normalised(P · v(x)) · Tᵀ of images x: v the vision tower, which is the body; P, T and s the head.

    P (D E) is CLIP's visual projection, T (K D) the class names' text features, s the logarithm of the logit scale.
    They are buffers: no fine-tuning changes them, and no Fisher is estimated for them.
    """

    base_model_prefix = "vision_model"

    def __init__(
        self,
        vision_model: nn.Module,
        projection: Float[Tensor, " D E"],
        text: Float[Tensor, " K D"],
        logit_scale: Float[Tensor, ""],
    ):
        super().__init__()
        self.vision_model = vision_model
        self.register_buffer("projection", projection)
        self.register_buffer("text", text)
        self.register_buffer("logit_scale", logit_scale)

    @property
    def base_model(self) -> nn.Module:
        """The vision tower."""
        return self.vision_model

    def forward(self, pixel_values: Tensor):
        """An output with `.logits` (N, K)."""
        from transformers.modeling_outputs import ImageClassifierOutput

        pooled = self.vision_model(pixel_values=pixel_values).pooler_output
        image = functional.normalize(functional.linear(pooled, self.projection), dim=-1)
        return ImageClassifierOutput(logits=self.logit_scale.exp() * image @ self.text.T)


@torch.no_grad()
def text_features(clip: nn.Module, tokenizer, texts: Sequence[str]) -> Float[Tensor, " T D"]:
    """What a CLIPModel's text tower and projection make of each text, at length 1."""
    longest = min(clip.config.text_config.max_position_embeddings, tokenizer.model_max_length)
    features = []
    for start in range(0, len(texts), TEXT_BATCH):
        part = list(texts[start : start + TEXT_BATCH])
        tokens = tokenizer(part, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        pooled = clip.text_model(tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
        features.append(functional.normalize(clip.text_projection(pooled), dim=-1))
    return torch.cat(features)


def zero_shot_text(
    clip: nn.Module, tokenizer, *, names: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, " K D"]:
    """T: for every class the mean of its filled templates' features, at length 1.

    Source: Radford et al. 2021, section 3.1.4 (the ensemble of prompts is formed over embeddings).
    """
    texts = [filled(template, name) for name in names for template in templates]
    features = text_features(clip, tokenizer, texts).view(len(names), len(templates), -1)
    return functional.normalize(features.mean(1), dim=-1)


def filled(template: str, name: str) -> str:
    """The template with the class name in the place of `{}`."""
    return template.replace("{}", name)


def check_templates(templates: Sequence[str], reference: str) -> None:
    """Raises: TaskError if a template has no place for the class name."""
    for template in templates:
        if "{}" not in template:
            raise TaskError(
                f'Task "{reference}" has a template without a place for the class name: expected "{{}}" in it, '
                f'got "{template}". Write for example "a photo of a {{}}." under templates.'
            )
