"""T5 as a classifier: a prompt is the question, and each label's words are an answer with a probability."""

import string
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from merging.errors import TaskError, nearest, quoted

Answers = Sequence[Sequence[int]]


class TextToTextClassifier(nn.Module):
    """Logits log p(words of label k | prompt): the sum of its tokens' log-probabilities as the decoder's answer.

    The whole language model is the body; there is no head. Softmax over the K logits is what the model says
    when it may only answer with a label. `answers` holds each label's token ids.
    """

    base_model_prefix = "language_model"

    def __init__(self, language_model: nn.Module, answers: Answers):
        super().__init__()
        self.language_model = language_model
        self.answers = [tuple(answer) for answer in answers]

    @property
    def base_model(self) -> nn.Module:
        """The language model, encoder and decoder."""
        return self.language_model

    def forward(self, input_ids: Tensor, attention_mask: Tensor):
        """An output with `.logits` (N, K). Labels whose words begin alike share a pass of the decoder."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        encoded = self.language_model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)
        logits: dict[int, Tensor] = {}
        for prefix, labels in _by_prefix(self.answers).items():
            start = self.language_model.config.decoder_start_token_id
            # Never a single word, whose table of relative positions looks to the Fisher as if it stood for all examples;
            # the decoder does not look ahead, and what it says behind a word that is not asked for is left out.
            words = torch.tensor([start, *(prefix or [start])], device=input_ids.device).expand(len(input_ids), -1)
            output = self.language_model(
                encoder_outputs=(encoded.last_hidden_state,),
                attention_mask=attention_mask,
                decoder_input_ids=words.contiguous(),
                use_cache=False,
            )
            # At least in float32: a sum of log-probabilities over a large vocabulary.
            scores = output.logits.log_softmax(-1, dtype=torch.promote_types(output.logits.dtype, torch.float32))
            for label in labels:
                steps = [scores[:, step, token] for step, token in enumerate(self.answers[label])]
                logits[label] = torch.stack(steps).sum(0)
        return SequenceClassifierOutput(logits=torch.stack([logits[k] for k in range(len(self.answers))], dim=1))


def answer_tokens(tokenizer, names: Sequence[str], *, reference: str) -> list[list[int]]:
    """Each label's tokens; with the end-of-sentence token where one label's words begin another's.

    Raises: TaskError if a label has no words, or if two labels are the same words to the tokenizer.
    """
    answers = [list(tokenizer(name, add_special_tokens=False)["input_ids"]) for name in names]
    unknown = [
        name for name, answer in zip(names, answers, strict=True) if not answer or tokenizer.unk_token_id in answer
    ]
    if unknown or len({tuple(answer) for answer in answers}) < len(answers):
        got = f"unknown words in {quoted(unknown)}" if unknown else "labels with equal tokens"
        raise TaskError(
            f'Task "{reference}" cannot be answered in words: expected label names that the tokenizer knows and tells '
            f"apart, got {got}. Name the labels as words under labels in task.yaml."
        )
    if any(_begins(one, other) for one in answers for other in answers if one is not other):
        answers = [[*answer, tokenizer.eos_token_id] for answer in answers]
    return answers


def prompted(columns: Mapping[str, list], prompt: str | None, *, inputs: Sequence[str], reference: str) -> list[str]:
    """The prompt of every row; without one, `name: text` for every input column, as in T5's own training.

    Raises: TaskError if the prompt names a column that is not there, or none at all.
    """
    prompt = prompt or " ".join(f"{column}: {{{column}}}" for column in inputs)
    try:
        named = [field for _, field, _, _ in string.Formatter().parse(prompt) if field is not None]
    except ValueError as problem:
        raise TaskError(
            f'Task "{reference}" has a prompt that cannot be read: expected column names in braces, got "{prompt}" '
            f"({problem}). Mend it in task.yaml."
        ) from problem
    wrong = [field for field in named if field not in columns]
    if wrong or not named:
        raise TaskError(
            f'Task "{reference}" has a prompt that does not fit: expected columns among {quoted(columns, 9)} in braces, '
            f"got {quoted(wrong)}. {nearest(wrong[0] if wrong else '', columns)}"
        )
    rows = zip(*(columns[name] for name in named), strict=True)
    return [prompt.format(**dict(zip(named, row, strict=True))) for row in rows]


def _by_prefix(answers: Answers) -> dict[tuple[int, ...], list[int]]:
    """Labels by what the decoder must have said before their last token."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for label, answer in enumerate(answers):
        groups.setdefault(tuple(answer[:-1]), []).append(label)
    return groups


def _begins(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) < len(other) and list(other[: len(one)]) == list(one)
