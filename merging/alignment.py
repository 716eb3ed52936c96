"""Which of a model's outputs a dataset's label is: found by the names, given, or suggested from predictions."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from merging.errors import TaskError, quoted

# No output of the model is this label's.
NONE = -1
# Words that people use for one label; each group's first is its name. Compared without case, blanks and punctuation.
SYNONYMS = (
    ("positive", "pos"),
    ("negative", "neg"),
    ("neutral", "neu"),
    ("entailment", "entail", "entails", "entailed"),
    ("contradiction", "contradict", "contradicts", "contradictory"),
    ("notentailment", "nonentailment", "notentailed", "noentailment"),
    ("equivalent", "duplicate", "paraphrase", "isduplicate", "isparaphrase"),
    ("notequivalent", "notduplicate", "notparaphrase", "nonduplicate", "nonparaphrase", "inequivalent"),
    ("acceptable", "grammatical"),
    ("unacceptable", "ungrammatical", "notacceptable", "notgrammatical"),
)
_NAME_OF = {word: group[0] for group in SYNONYMS for word in group}


@dataclass(frozen=True)
class Alignment:
    """`order[i]` is the model's output for the dataset's label i (-1: none); `how` it was found, and a sentence.

    `how` is `given`, `names` (in whatever order), `synonyms`, `numbers` (label i is output i, for want of names on one
    side) or `other names` (label i is output i, though both have names and they do not match).
    """

    order: tuple[int, ...]
    how: str
    sentence: str

    @property
    def is_certain(self) -> bool:
        """Whether names or the user say so; else it should be checked."""
        return self.how in ("given", "names", "synonyms")


@dataclass(frozen=True)
class Suggestion:
    """The alignment with the most right predictions on `examples` rows, and its accuracy beside the identity's."""

    order: tuple[int, ...]
    accuracy: float
    identity_accuracy: float
    examples: int

    @property
    def sentence(self) -> str:
        """What the page shows."""
        both = f"{self.accuracy:.0%} of {self.examples} rows are right with it, {self.identity_accuracy:.0%} without"
        if self.order == tuple(range(len(self.order))):
            return f"The labels stand in the model's order as far as {self.examples} rows show: {self.accuracy:.0%} are right."
        return f"alignment: {list(self.order)} is suggested: {both}."


def align(
    labels: Sequence[str] | None,
    outputs: Sequence[str],
    *,
    given: Sequence[int] | None = None,
    reference: str = "the task",
) -> Alignment:
    """Matches a dataset's label names with the names of a model's outputs; `given` overrules the names.

    Raises: TaskError if `given` is no list of different outputs, or if a name fits two outputs.
    """
    if given is not None:
        return _given(labels, outputs, given, reference)
    if labels is not None and list(map(str, labels)) == list(map(str, outputs)):
        return Alignment(tuple(range(len(outputs))), "names", _sentence(labels, outputs, range(len(outputs))))
    same = labels is not None and set(map(str, labels)) == set(map(str, outputs))
    if not same and (labels is None or is_generic(labels) or is_generic(outputs)):
        count = len(labels) if labels is not None else len(outputs)
        order = tuple(index if index < len(outputs) else NONE for index in range(count))
        if labels is None or is_generic(labels):
            reason = "The dataset's labels are numbers"
        else:
            reason = f"The model names its outputs {outputs[0]}, … alone"
        pairs = _pairs(labels or [str(index) for index in range(count)], outputs, order)
        return Alignment(order, "numbers", f'{reason}, so this is assumed: {pairs}. Check it, or give "alignment".')
    for how, key in (("names", plain_name), ("synonyms", _synonym)):
        order = _matched(labels, outputs, key, reference)
        if all(index != NONE for index in order) or (how == "synonyms" and any(index != NONE for index in order)):
            return Alignment(order, how, _sentence(labels, outputs, order))
    order = tuple(index if index < len(outputs) else NONE for index in range(len(labels)))
    assumed = f"no name is in both, so this is assumed: {_pairs(labels, outputs, order)}"
    return Alignment(
        order, "other names", f'Labels and the model\'s outputs: {assumed}. Check it, or give "alignment".'
    )


def can_align(labels: Sequence[str], outputs: Sequence[str]) -> bool:
    """Whether label names and a model's outputs are the same set, by names or well-known synonyms."""
    if len(labels) != len(outputs):
        return False
    return any(sorted(map(key, labels)) == sorted(map(key, outputs)) for key in (str, plain_name, _synonym))


def suggest_alignment(
    predicted: Sequence[int], labels: Sequence[int], *, outputs: int, count: int | None = None
) -> Suggestion:
    """The order of a model's outputs for the dataset's `count` labels (as many where None) with most predictions right.

    Maximises Σᵢ C[i, π(i)], where C counts the rows of label i that the model gives output j.

    Source: the linear assignment problem, scipy.optimize.linear_sum_assignment.
    """
    from scipy.optimize import linear_sum_assignment

    count = outputs if count is None else count
    counts = numpy.zeros((count, outputs))
    numpy.add.at(counts, (numpy.asarray(labels, dtype=int), numpy.asarray(predicted, dtype=int)), 1)
    # Of equally good orders the one that leaves most labels where they are.
    _, order = linear_sum_assignment(counts + numpy.eye(count, outputs) / (2 * outputs), maximize=True)
    total = max(len(labels), 1)
    right = counts[range(count), order].sum() / total
    return Suggestion(tuple(int(index) for index in order), float(right), float(counts.trace() / total), len(labels))


def is_generic(names: Sequence[str]) -> bool:
    """Whether the names are only numbers, such as LABEL_0 or 0."""
    return all(str(name).upper().removeprefix("LABEL_").strip().isdigit() for name in names)


def plain_name(name: str) -> str:
    """A label's name without case, blanks and punctuation; `_` and `-` are punctuation, `+` and digits are not."""
    folded = unicodedata.normalize("NFKC", str(name)).casefold()
    kept = "".join(letter for letter in folded if unicodedata.category(letter)[0] in "LNMS")
    return kept or folded


def _synonym(name: str) -> str:
    plain = plain_name(name)
    return _NAME_OF.get(plain, plain)


def _matched(labels: Sequence[str], outputs: Sequence[str], key, reference: str) -> tuple[int, ...]:
    exact = [str(output) for output in outputs]
    keys = [key(output) for output in outputs]
    order = []
    for label in labels:
        # A model may have "a" and "A", which only the exact names tell apart.
        fitting = [exact.index(str(label))] if exact.count(str(label)) == 1 else []
        fitting = fitting or [index for index, other in enumerate(keys) if other == key(label)]
        if len(fitting) > 1:
            raise TaskError(
                f'The labels of "{reference}" cannot be matched: expected one output for "{label}", '
                f'got {quoted(outputs[index] for index in fitting)}. Give "alignment" in the task.'
            )
        order.append(fitting[0] if fitting else NONE)
    taken = [index for index in order if index != NONE]
    if len(set(taken)) < len(taken):
        both = [label for label, index in zip(labels, order, strict=True) if taken.count(index) > 1]
        raise TaskError(
            f'The labels of "{reference}" cannot be matched: expected an output for each, got one for both of '
            f'{quoted(both)}. Give "alignment" in the task.'
        )
    return tuple(order)


def _given(labels: Sequence[str] | None, outputs: Sequence[str], given: Sequence[int], reference: str) -> Alignment:
    order = tuple(given)
    sound = all(isinstance(index, int) and 0 <= index < len(outputs) for index in order)
    if not sound or len(set(order)) < len(order) or (labels is not None and len(labels) != len(order)):
        count = len(labels) if labels is not None else len(outputs)
        raise TaskError(
            f'The alignment of "{reference}" cannot be used: expected {count} different outputs from 0 to '
            f"{len(outputs) - 1}, one per label, got {list(order)}. Mend the alignment."
        )
    shown = labels if labels is not None else [str(index) for index in range(len(order))]
    return Alignment(order, "given", _sentence(shown, outputs, order))


def _sentence(labels: Sequence[str], outputs: Sequence[str], order: Sequence[int]) -> str:
    if list(map(str, labels)) == [str(outputs[index]) if index != NONE else None for index in order]:
        return "The dataset's labels are the model's."
    return f"Labels and the model's outputs: {_pairs(labels, outputs, order)}."


def _pairs(labels: Sequence[str], outputs: Sequence[str], order: Sequence[int]) -> str:
    shown = [
        f"{label} → {outputs[index] if index != NONE else 'no output'}"
        for label, index in zip(labels, order, strict=True)
    ]
    return ", ".join(shown[:9]) + (f" and {len(shown) - 9} more" if len(shown) > 9 else "")
