"""Sums of squared per-example gradients: exact, at about the price of one training step."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from merging.errors import FisherError, require_choice
from merging.gradients.check import EXAMPLES, checked, chosen_rows, warn_of
from merging.gradients.factors import LABELS, Columns, Draws, causal_columns, columns_for, resolve_labels
from merging.gradients.kronecker import FactorSums
from merging.gradients.memory import MOST_EXAMPLES, MemoryWarning, fitting_examples, free_bytes, is_out_of_memory
from merging.gradients.outputs import check_targets, counted_positions, fitting_targets, likelihood_of, logits_of
from merging.gradients.per_example import add_by_loop, batch_length, numbers_each, rows_of, trimmed
from merging.gradients.readiness import frozen, original
from merging.gradients.recording import Recording

STATE = ("labels", "seed", "place", "fallbacks", "_checked", "_unseen", "_layouts")
# With STATE, what decides the size of a batch.
SIZES = ("_bytes_each", "_budget_bytes", "_most")


class SquaredGradients:
    """Σ_n Σ_c (∂(l_c · z_n)/∂θ)² for every parameter, over all batches that were added; a context manager.

    Inside, the model is frozen and in evaluation mode; everything is restored on leaving. `sums` are in float32
    (float64 for a float64 model) whatever the model's dtype, by the parameters' names; divided by `examples` they are
    the diagonal Fisher. `labels` chooses the cotangents l_c, see `factors`. `place` is the first example's place in
    the data, which decides its random numbers: a worker that takes the rows from 1000 on sets 1000.

    No example's gradient is ever formed as a whole. Modules without a rule of their own are differentiated alone by
    `torch.func`; parameters beyond that, or which disagree with plain autograd on three examples of the first batch,
    are computed one example at a time. `fallbacks` names those, with the reason.

    With `factors`, what the layers' Kronecker factors need is summed in the same passes, see `kronecker`.
    """

    def __init__(self, model: nn.Module, labels: str = "auto", *, seed: int = 0, place: int = 0, factors: bool = False):
        require_choice("kind of labels", labels, LABELS)
        self.model = original(model)
        self.labels, self.seed, self.place = labels, seed, place
        parameters = dict(self.model.named_parameters())
        if not parameters:
            raise FisherError("The model has no parameters: expected at least one, got none. Use another checkpoint.")
        self.device, self.dtype = next((p.device, p.dtype) for p in parameters.values())
        with torch.inference_mode(False):
            self.sums = {n: torch.zeros(p.shape, dtype=_wide(p.dtype), device=p.device) for n, p in parameters.items()}
            self.factors = FactorSums.of(self.model, self.sums) if factors else None
        self.examples = 0
        self.fallbacks: dict[str, str] = {}
        self._reported = 0
        # What a resumed estimate must do again in the same way: see `about`.
        self._checked = 0
        self._unseen: list[str] = []
        self._layouts: dict[str, list[str]] = {}
        self._bytes_each = self._budget_bytes = 0.0
        self._most: int | None = None

    def __enter__(self) -> "SquaredGradients":
        with ExitStack() as entering:
            entering.enter_context(torch.inference_mode(False))
            entering.enter_context(frozen(self.model))
            self._recording = Recording(self.model, self.sums, self.fallbacks, self._layouts)
            self._recording.factors = self.factors
            self._watch()
            entering.enter_context(self._recording.hooks())
            self._open = entering.pop_all()
        return self

    def __exit__(self, *problem: object) -> None:
        self._open.close()

    def add(self, batch: Mapping[str, object]) -> int:
        """Adds every example of a batch, in as many parts as memory asks for; returns how many.

        Raises: FisherError if the batch, or what the model makes of it, cannot be used.
        """
        return sum(self.add_part(part) for part in self.parts(batch))

    def parts(self, batch: Mapping[str, object]) -> Iterator[dict[str, object]]:
        """The batch, cut to what fits into memory. The first batch decides what that is, and is checked."""
        inputs = {name: self._placed(value) for name, value in batch.items() if name != "labels"}
        count = batch_length(inputs)
        if self._checked < min(count, EXAMPLES):
            self._check(rows_of(inputs, chosen_rows(inputs, count)))
        if self.labels == "empirical" and "labels" in batch:
            inputs["labels"] = fitting_targets(batch["labels"], count)
        start = 0
        while start < count:
            most = self._most or MOST_EXAMPLES.get(self.device.type, MOST_EXAMPLES["cpu"])
            numbers = numbers_each(trimmed(rows_of(inputs, slice(start, start + most))))
            stop = start + fitting_examples(numbers * self._bytes_each, self._budget_bytes, most=most)
            yield trimmed(rows_of(inputs, slice(start, stop)))
            start = stop

    def add_part(self, part: Mapping[str, object]) -> int:
        """Adds the examples of one of the `parts`, all of them or, after an error, none."""
        inputs = {name: value for name, value in part.items() if name != "labels"}
        count = batch_length(inputs)
        places = range(self.place + self.examples, self.place + self.examples + count)
        self._add(inputs, part.get("labels"), places, set())
        self.examples += count
        return count

    @property
    def at_most(self) -> int | None:
        """The most examples at a time, where memory has run out."""
        return self._most

    def about(self) -> dict[str, object]:
        """Whatever, besides `sums` and `examples`, an estimate needs to go on as if it had never stopped."""
        return {name.lstrip("_"): getattr(self, name) for name in STATE + SIZES}

    def resume(self, sums: Mapping[str, Tensor], examples: int, about: Mapping[str, object]) -> None:
        """Goes on, before it is entered, from another's."""
        for name, total in self.sums.items():
            total.copy_(sums[name])
        self.examples = examples
        for name, value in about.items():
            setattr(self, name if hasattr(self, name) else f"_{name}", value)

    def merge(self, sums: Mapping[str, Tensor], examples: int, factors: FactorSums | None = None) -> None:
        """Adds another worker's sums over other examples."""
        for name, total in self.sums.items():
            total.add_(sums[name].to(total))
        if self.factors is not None and factors is not None:
            self.factors.merge(factors)
        self.examples += examples

    def _add(self, inputs: dict, targets: Tensor | None, places: range, done: set[tuple[str, int]]) -> None:
        try:
            self._pass(inputs, targets, places, done)
            return
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            if len(places) == 1:
                raise self._no_memory() from problem
        # What the pass had finished is in `done`: the halves leave it out.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._most = middle = len(places) // 2
        told = f"Memory ran out: the Fisher takes at most {middle} examples at a time."
        warnings.warn(told, MemoryWarning, stacklevel=2)
        for half in (slice(0, middle), slice(middle, len(places))):
            self._add(rows_of(inputs, half), None if targets is None else targets[half], places[half], set(done))

    def _pass(self, inputs: dict, targets: Tensor | None, places: range, done: set[tuple[str, int]]) -> None:
        if len(self.fallbacks) < len(self.sums):
            with self._recording.forward(inputs, done):
                output = self.model(**inputs)
            logits, columns = self._columns(output, inputs, targets, places)
            self._backward(logits, columns)
            del output, logits, columns
        if self.fallbacks:
            self._report()
            self._loop(inputs, targets, places, done)

    def _backward(self, logits: Tensor, columns: Columns) -> None:
        for c in range(columns.count if logits.requires_grad else 0):
            column, scale = columns.column(c), None
            if logits.dtype in (torch.float16, torch.bfloat16):
                # A confident example's cotangent would vanish: every one travels at unit size.
                scale = column.flatten(1).norm(dim=1)
                column = column / scale.clamp_min(1e-300).view(-1, *[1] * (column.dim() - 1))
                scale = scale.to(logits.device, torch.float32)
            self._recording.backward(logits, column, index=c, last=c + 1 == columns.count, scale=scale)

    def _loop(self, inputs: dict, targets: Tensor | None, places: range, done: set[tuple[str, int]]) -> None:
        def columns_of(output: object, example: dict, index: int) -> tuple[Tensor, Columns]:
            target = None if targets is None else targets[index : index + 1]
            return self._columns(output, example, target, places[index : index + 1])

        totals = {name: self.sums[name] for name in self.fallbacks}
        try:
            add_by_loop(self.model, inputs, columns_of, totals, lambda name, c: (name, c) not in done)
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            # It takes one example at a time: halves would need as much, and count the first examples twice.
            raise self._no_memory() from problem

    def _no_memory(self) -> FisherError:
        return FisherError(
            "The Fisher cannot be estimated: expected memory for one example and its gradients, got none left "
            f"on {self.device.type}. Use shorter inputs, another device, or a smaller checkpoint."
        )

    def _columns(self, output: object, inputs: dict, targets: Tensor | None, places: range) -> tuple[Tensor, Columns]:
        logits = logits_of(output)
        likelihood = likelihood_of(self.model, logits, len(places))
        self.labels = resolve_labels(self.labels, logits.shape[-1], likelihood)
        draws = Draws(self.seed, places)
        if likelihood == "causal":
            counts = counted_positions(inputs, logits)
            return logits, causal_columns(logits, self.labels, draws=draws, counts=counts, tokens=inputs["input_ids"])
        if self.labels == "empirical":
            targets = check_targets(targets, logits, likelihood)
        return logits, columns_for(logits, self.labels, draws=draws, likelihood=likelihood, targets=targets)

    def _check(self, inputs: dict) -> None:
        """A few examples by the calls and by autograd; where they differ, the parameter goes to the loop."""
        # Sums are there already where the first batches had one or two examples.
        aside = {name: tensor.clone() for name, tensor in self.sums.items()} if self.examples else {}
        _zero(self.sums)
        self._recording.factors = None  # for what is checked does not count
        verdict = checked(self.model, inputs, self._recording)
        self._recording.factors = self.factors
        for name, reason in verdict.reasons.items():
            self.fallbacks.setdefault(name, reason)
        self._report()
        self._unseen = sorted(set(self.sums) - self._recording.seen)
        self._watch()
        _zero(self.sums)
        for name, tensor in aside.items():
            self.sums[name].copy_(tensor)
        if not self._checked:
            self._bytes_each, self._budget_bytes = verdict.bytes_each, free_bytes(self.device)
        self._checked = batch_length(inputs)

    def _watch(self) -> None:
        """Parameters that no call has shown stay visible to autograd: should it reach one, the loop takes it."""
        for parameter, name in self._recording.names.items():
            parameter.requires_grad_(name in self._unseen and name not in self.fallbacks)

    def _placed(self, value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        value = value.clone() if value.is_inference() else value
        return value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)

    def _report(self) -> None:
        new = dict([*self.fallbacks.items()][self._reported :])
        self._reported = len(self.fallbacks)
        warn_of(new)
        if new:
            self._watch()
            if self.factors is not None:
                self.factors.drop(new)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _zero(tensors: Mapping[str, Tensor]) -> None:
    for tensor in tensors.values():
        tensor.zero_()
