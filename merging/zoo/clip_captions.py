"""Captions of the digits-clip pool: what is said about a digit, the tasks that ask about it, and the words.

A caption is a medium and one fact, "an inverted picture of an odd number": true of every image whose digit has the
fact and whose ink is inverted or not, as it says. The tasks are those of the pool `digits` on its rows, with label
names that fit into a caption; filled with them, their templates are captions.
"""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from merging.zoo.digits_data import TASKS, DigitTask

MEDIA = ("photo", "picture", "drawing", "scan")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")
LONGEST_CAPTION = 16  # tokens, with start and end


@dataclass(frozen=True)
class CaptionedTask:
    """A task of the pool `digits` in words: its labels in the place of `{}` in `fact` say what is true of a digit."""

    name: str
    fact: str
    labels: tuple[str, ...]

    @property
    def source(self) -> DigitTask:
        """The task of the pool `digits`: its title, and the label of each digit."""
        return TASKS[self.name]

    @property
    def templates(self) -> tuple[str, ...]:
        """The captions that are filled with a label."""
        return tuple(f"a {medium} of {self.fact}" for medium in MEDIA)


CAPTIONED_TASKS = {
    task.name: task
    for task in (
        CaptionedTask("parity", "an {} number", ("even", "odd")),
        CaptionedTask("large", "a number {}", ("below five", "above four")),
        CaptionedTask("loop", "a digit {}", ("without a loop", "with a loop")),
        CaptionedTask("remainder", "a number with {}", ("no remainder", "remainder one", "remainder two")),
    )
}
DIGIT = CaptionedTask("digit", "the digit {}", NAMES)


@dataclass(frozen=True)
class Facts:
    """All facts: what a caption says, and of which of the ten digits it is true (facts, 10)."""

    texts: tuple[str, ...]
    truth: Tensor

    @staticmethod
    def of(*tasks: CaptionedTask) -> "Facts":
        """The facts of some tasks, in their order."""
        texts = [task.fact.replace("{}", label) for task in tasks for label in task.labels]
        truth = [
            torch.as_tensor(task.source.label_of_digit) == index for task in tasks for index in range(len(task.labels))
        ]
        return Facts(tuple(texts), torch.stack(truth))


def caption(fact: str, medium: str, *, is_inverted: bool) -> str:
    """One caption."""
    return f"an inverted {medium} of {fact}" if is_inverted else f"a {medium} of {fact}"


def create_tokenizer() -> PreTrainedTokenizerFast:
    """Words of captions, one token each, between a start and an end."""
    facts = Facts.of(DIGIT, *CAPTIONED_TASKS.values()).texts
    captions = [caption(fact, medium, is_inverted=flag) for fact in facts for medium in MEDIA for flag in (True, False)]
    words = sorted({word for text in captions for word in text.split()} | {"."})
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=LONGEST_CAPTION,
    )
