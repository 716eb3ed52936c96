"""What a model says about a batch: its logits, and the likelihood that they stand for."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from merging.errors import FisherError

LIKELIHOODS = ("softmax", "bernoulli", "gaussian", "causal")


def logits_of(output: object) -> Tensor:
    """`output.logits`. Raises: FisherError if there are none, if they are not finite, or if no gradient leads to them."""
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise FisherError(
            "The model is not a classifier: expected forward(**batch).logits of shape (N, K), "
            f"got a {type(output).__name__}. Use a checkpoint with a classification head."
        )
    if not torch.isfinite(logits).all():
        finite = torch.isfinite(logits).flatten(1).all(1) if logits.dim() > 1 else torch.isfinite(logits)
        worst = int((~finite).nonzero()[0])
        raise FisherError(
            f"The Fisher cannot be estimated: expected finite logits, got {logits[worst].flatten().tolist()[:5]} for "
            f"example {worst} of a batch. Check that the checkpoint is complete and its inputs are as in its training."
        )
    return logits


def likelihood_of(model: nn.Module, logits: Tensor, examples: int) -> str:
    """What the logits are: `softmax`, `bernoulli` (several labels), `gaussian` (regression), or `causal` (next token).

    From the configuration's `problem_type`, else as Transformers does: one output is a regression.
    Raises: FisherError if they are neither (N, K) nor those of a causal language model.
    """
    if logits.dim() == 3 and logits.shape[0] == examples and _is_causal(model):
        return "causal"
    if logits.dim() != 2 or logits.shape[0] != examples or logits.shape[1] == 0:
        raise FisherError(
            "The model is not a classifier: expected forward(**batch).logits of shape (N, K), one row for each of the "
            f"{examples} examples, got logits of shape {list(logits.shape)}. Use a checkpoint with a classification head."
        )
    named = getattr(getattr(model, "config", None), "problem_type", None)
    if named == "regression" or logits.shape[1] == 1:
        return "gaussian"
    return "bernoulli" if named == "multi_label_classification" else "softmax"


def fitting_targets(labels: object, examples: int) -> Tensor:
    """The data's labels as a tensor. Raises: FisherError if there is not one for each example."""
    labels = torch.as_tensor(labels)
    if labels.dim() == 0 or len(labels) != examples:
        raise FisherError(
            f"The labels do not fit: expected {examples}, one per example, got {labels.shape[0] if labels.dim() else 1}."
        )
    return labels


def check_targets(targets: Tensor | None, logits: Tensor, likelihood: str) -> Tensor:
    """The data's labels beside the logits: (N,) classes, or (N, K) numbers.

    Raises: FisherError if there are none, or if one does not fit.
    """
    if targets is None:
        raise FisherError(
            'The empirical Fisher needs the data\'s labels: expected "labels" in every batch, got none. '
            'Add them, or choose labels="exact".'
        )
    targets = targets.to(logits.device)
    if likelihood != "softmax":
        if targets.numel() != logits.numel():
            raise FisherError(
                f"The labels do not fit the model: expected {logits.shape[1]} numbers for each example, "
                f"got {list(targets.shape)} for {len(logits)} examples. Check the task's label column."
            )
        return targets.reshape(logits.shape)
    wrong = targets[(targets < 0) | (targets >= logits.shape[1])] if targets.dim() == 1 else targets.flatten()
    if len(wrong):
        raise FisherError(
            f"A label does not fit the model: expected 0 to {logits.shape[1] - 1}, got {wrong[0].item()}. "
            "Check the task's label column and names."
        )
    return targets.long()


def counted_positions(inputs: Mapping[str, object], logits: Tensor) -> Tensor:
    """(N, T): positions t of a language model whose next token is there, the terms of log p(x₂ … x_T | x₁).

    Raises: FisherError if an example has none.
    """
    mask = inputs.get("attention_mask")
    there = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device) if mask is None else mask.bool()
    counts = torch.zeros_like(there)
    counts[:, :-1] = there[:, :-1] & there[:, 1:]
    if not counts.any(1).all():
        raise FisherError(
            "A text is too short for a language model's Fisher: expected at least two tokens, got one. Leave it out."
        )
    return counts


def _is_causal(model: nn.Module) -> bool:
    return any(kind.__name__.endswith(("ForCausalLM", "LMHeadModel")) for kind in type(model).__mro__)
