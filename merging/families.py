"""Families of checkpoints: how each one becomes a model with logits for its task.

Classifiers bring their own heads. CLIP's vision towers get a zero-shot head from the class names of their task and
a text tower: their own in a full CLIPModel, else the base's. T5 answers in the label words of its task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from merging.checkpoints import TEXT_TO_TEXT, TOWERS, Checkpoint
from merging.columns import guess_columns
from merging.errors import CheckpointError, RecipeError, TaskError
from merging.headers import Header
from merging.processors import open_processor
from merging.tasks import SPLITS, Task
from merging.text_to_text import TextToTextClassifier, answer_tokens
from merging.zero_shot import DEFAULT_TEMPLATES, ZeroShotClassifier, check_templates, zero_shot_text

CLIP = "CLIPModel"
TOWER = "CLIPVisionModel"
PROJECTION = "visual_projection.weight"


def fit_checkpoint(checkpoint: Checkpoint, task: Task, base: Checkpoint | None) -> Checkpoint:
    """The checkpoint as it answers `task`: one without a head gets the task's label names, and what its base lends.

    Raises: RecipeError if a vision tower has no base; CheckpointError if the base is no CLIP of its sizes; TaskError
    if the task has no label names or a template has no place for them.
    """
    if checkpoint.architecture in TOWERS:
        check_templates(task.templates, task.reference)
        base = None if checkpoint.architecture == CLIP else base
        if checkpoint.architecture != CLIP:
            _check_lender(checkpoint, base)
    checkpoint = answering(checkpoint, task)
    return replace(checkpoint, base=base) if answers_in_words(checkpoint) else checkpoint


def answering(checkpoint: Checkpoint, task: Task) -> Checkpoint:
    """The checkpoint with the label names that it has for `task`; it may still lack what its base lends.

    Raises: TaskError if it has no head and the task no label names.
    """
    return replace(checkpoint, answers=_label_names(task)) if answers_in_words(checkpoint) else checkpoint


def answers_in_words(checkpoint: Checkpoint) -> bool:
    """Whether its head is no part of it, but made of a task's words, by its own or its base's text tower or tokenizer."""
    return _wrapper(checkpoint) is not None


def body_class(checkpoint: Checkpoint | Header) -> str:
    """The Transformers class of what is merged and exported; checkpoints of one class can be merged."""
    return TOWER if checkpoint.architecture in TOWERS else checkpoint.architecture


def body_config(checkpoint: Checkpoint | Header) -> Mapping[str, object]:
    """The configuration of what is merged: a whole CLIP's is that of its vision tower."""
    whole = checkpoint.config
    return (whole.get("vision_config") or whole) if body_class(checkpoint) == TOWER else whole


def parameter_prefix(checkpoint: Checkpoint) -> str:
    """What stands before the names of the checkpoint's parameters in the model that answers its task."""
    wrapper = _wrapper(checkpoint)
    return "" if wrapper is None else f"{wrapper.base_model_prefix}."


def open_models(
    checkpoints: Sequence[Checkpoint], tasks: Sequence[Task], device: str | torch.device
) -> list[nn.Module]:
    """Each checkpoint as a model with logits for its task, in float32 and evaluation mode; a text tower is read once.

    Raises: CheckpointError, TaskError.
    """
    lent: dict[str, nn.Module] = {}
    return [_open(checkpoint, task, device, lent) for checkpoint, task in zip(checkpoints, tasks, strict=True)]


def base_parameters(checkpoint: Checkpoint, base: Checkpoint, device: str | torch.device) -> dict[str, Tensor]:
    """The base's parameters under the names that they have in `checkpoint`'s model; a head that it lacks is left out.

    Raises: CheckpointError if the base lacks some of the body's.
    """
    wrapper = _wrapper(checkpoint)
    if wrapper is None:
        return base.parameters_as_base_of(checkpoint.architecture, device)
    body = _tower(base, device) if wrapper is ZeroShotClassifier else base.model(device)
    return {parameter_prefix(checkpoint) + name: tensor.detach() for name, tensor in body.named_parameters()}


def _wrapper(checkpoint: Checkpoint) -> type[nn.Module] | None:
    if checkpoint.architecture in TOWERS:
        return ZeroShotClassifier
    return TextToTextClassifier if checkpoint.architecture in TEXT_TO_TEXT else None


def _open(checkpoint: Checkpoint, task: Task, device: str | torch.device, lent: dict[str, nn.Module]) -> nn.Module:
    wrapper = _wrapper(checkpoint)
    if wrapper is None:
        return checkpoint.model(device)
    if wrapper is TextToTextClassifier:
        answers = answer_tokens(checkpoint.processor(), checkpoint.label_names, reference=task.reference)
        return TextToTextClassifier(checkpoint.model(device), answers).eval()
    lender = checkpoint.base or checkpoint
    if lender.reference not in lent:
        lent[lender.reference] = lender.model()
    clip = lent[lender.reference]
    tower = _tower(checkpoint, device)
    tokenizer = open_processor(lender.folder, images=False, reference=lender.reference)
    text = zero_shot_text(clip, tokenizer, names=checkpoint.label_names, templates=task.templates or DEFAULT_TEMPLATES)
    # A tower that was saved with a projection of its own keeps it.
    own = checkpoint.parameters()[PROJECTION].float() if PROJECTION in checkpoint.shapes else None
    projection = clip.visual_projection.weight.detach() if own is None else own
    head = (projection.clone(), text, clip.logit_scale.detach().clone())
    return ZeroShotClassifier(tower, *head).eval().to(device)


def _tower(checkpoint: Checkpoint, device: str | torch.device) -> nn.Module:
    """The vision tower alone. Raises: CheckpointError if the checkpoint has none."""
    if checkpoint.architecture not in TOWERS:
        raise CheckpointError(
            f'"{checkpoint.reference}" has no vision tower: expected one of CLIP\'s classes, got '
            f'"{checkpoint.architecture}". Name the CLIP that the models were fine-tuned from.'
        )
    whole = checkpoint.model(device)
    return whole if checkpoint.architecture == TOWER else whole.vision_model


def _label_names(task: Task) -> tuple[str, ...]:
    """The task's declared label names, those of its dataset's label feature, or the words in its label column."""
    if task.labels:
        return task.labels
    splits = [task.rows(split) for split in SPLITS if task.has(split)]
    _, column = guess_columns(splits[0], task.inputs, task.label, reference=task.reference)
    names = getattr(splits[0].features[column], "names", None)
    if names:
        return tuple(str(name) for name in names)
    values = {value for rows in splits for value in rows[column]}
    if not all(isinstance(value, str) for value in values):
        raise TaskError(
            f'Task "{task.reference}" has no label names: expected words under labels, one per class, since the '
            f"checkpoint has no head of its own, got numbers alone. List them in task.yaml, in the order of the numbers."
        )
    return tuple(sorted(values))


def _check_lender(tower: Checkpoint, base: Checkpoint | None) -> None:
    """Raises: RecipeError without a base; CheckpointError unless it is a CLIP into whose projection the tower fits."""
    if base is None:
        raise RecipeError(
            f'"{tower.reference}" is a vision tower without class names: expected the CLIP that it was fine-tuned from '
            'under "base", got none. Name it, for example openai/clip-vit-base-patch32.'
        )
    if base.architecture != CLIP:
        raise CheckpointError(
            f'The base "{base.reference}" cannot name classes: expected a CLIPModel with a text tower, got '
            f'"{base.architecture}". Name the CLIP that "{tower.reference}" was fine-tuned from.'
        )
    into, width = base.shapes.get(PROJECTION, (0, 0))
    expected = tower.shapes.get(PROJECTION, (into, body_config(tower).get("hidden_size", width)))
    if (into, width) != tuple(expected):
        raise CheckpointError(
            f'The base "{base.reference}" does not fit "{tower.reference}": expected a projection from '
            f"{expected[1]} to {expected[0]} numbers, got one from {width} to {into}. "
            "Name the CLIP that it was fine-tuned from."
        )
