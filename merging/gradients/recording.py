"""Watches a model's calls, and turns the gradients that pass by into squares of per-example parameter gradients.

The parameters are frozen: autograd carries gradients through the activations only and never forms the batch's
parameter gradients, which nobody needs. What they would have cost pays for the per-example ones.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn

from merging.gradients.accumulation import Scratch, add_squares
from merging.gradients.kronecker import FactorSums
from merging.gradients.layers import Call, parts_of
from merging.gradients.memory import Kept, is_out_of_memory
from merging.gradients.parts import Part
from merging.gradients.per_example import batch_length, numbers_each, refusing_in_words
from merging.gradients.quiet import leaving_out_quiet_tokens


class Recording:
    """The calls of one forward pass, and what has been added of their gradients.

    `totals` maps a parameter's name to its accumulator; `by_loop` those that calls cannot give, with the reason;
    `layouts` modules to the proportions of their rows to an example's numbers, as they were when that was checked.
    `done` holds (name, column) for everything that is in the totals already.
    """

    def __init__(self, model: nn.Module, totals: Mapping[str, Tensor], by_loop: dict[str, str], layouts: dict):
        self.totals, self.by_loop = totals, by_loop
        self.names = {parameter: name for name, parameter in model.named_parameters()}
        self.owners = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
        size = sum(parameter.numel() for parameter in self.names)
        for module in self.owners:
            inner = sum(p.numel() for p in module.parameters()) - sum(p.numel() for p in module.parameters(False))
            if 2 * inner > size:
                self._give_up(module, "its module holds most of the model")
        device = next(iter(self.names)).device
        self.anchor = torch.zeros((), device=device, requires_grad=True)
        self.examples = 0
        self.column = 0
        self.scale: Tensor | None = None
        self.layouts = layouts
        self.scratch = Scratch()
        self.factors: FactorSums | None = None
        self.done: set[tuple[str, int]] = set()
        self.seen: set[str] = set()
        self._uses: dict[str, int] = {}
        self._waiting: dict[str, list[Part]] = {}
        self._in_forward = False
        self._in_backward = False
        # Set while three examples are checked, when what a forward pass keeps is counted and layouts are learnt.
        self.kept: Kept | None = None

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Hooks on every module that owns parameters; gone afterwards."""
        handles = [module.register_forward_hook(self._called, with_kwargs=True) for module in self.owners]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def forward(self, inputs: Mapping[str, object], done: set[tuple[str, int]]) -> Iterator[None]:
        """Calls made inside are recorded, as calls on this batch."""
        self.examples, self.done = batch_length(inputs), done
        self._numbers = numbers_each(inputs)
        self._uses = defaultdict(int)
        self._in_forward = True
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._in_forward = False

    def backward(self, logits: Tensor, column: Tensor, *, index: int, last: bool, scale: Tensor | None = None) -> None:
        """Sends one cotangent of the logits back, and adds the squares of every recorded parameter's gradient."""
        self.column, self.scale = index, scale
        self._waiting = defaultdict(list)
        watched = [parameter for parameter in self.names if parameter.requires_grad]
        self._in_backward = True
        try:
            with refusing_in_words(self.totals):
                _, *reached = torch.autograd.grad(
                    logits, [self.anchor, *watched], column.to(logits), retain_graph=not last, allow_unused=True
                )
        finally:
            self._in_backward = False
        for parameter, gradient in zip(watched, reached, strict=True):
            if gradient is not None:
                self._fail(self.names[parameter], "it is used without a call of its module")
        for name in list(self._waiting):
            self._add(name)

    def _called(self, module: nn.Module, args: tuple, kwargs: dict, output: object) -> object:
        if self._in_backward and torch.is_grad_enabled():
            self._give_up(module, "its module is called again during the backward pass (gradient checkpointing)")
            return None
        # A page may use the same model from another thread.
        if not self._in_forward or not torch.is_grad_enabled() or threading.get_ident() != self._thread:
            return None
        names = self._owned(module)
        self.seen.update(names)
        reason = self._unfit(module, args, kwargs, output)
        if reason:
            self._give_up(module, reason)
            return None
        if all(name in self.by_loop for name in names):
            return None
        output = leaving_out_quiet_tokens(module, args, output)
        # Positions and segments are often looked up once for all examples: their gradients would arrive summed.
        is_shared = output.shape[0] != self.examples and output.shape[0] == 1
        # A leaf that requires gradients is the work of a hook for gradient checkpointing.
        if is_shared or not output.requires_grad or output.is_leaf:
            output = _Entry.apply(output, self.anchor, self.examples if is_shared else None)
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        versions = [(tensor, tensor._version) for tensor in tensors]
        if self.kept is not None:
            for tensor in tensors:
                self.kept.count(tensor)
        for name in names:
            self._uses[name] += 1
        output.register_hook(partial(self._passing, module, args, kwargs, versions))
        return output

    def _unfit(self, module: nn.Module, args: tuple, kwargs: dict, output: object) -> str | None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return "its module's output is not one tensor"
        rows = output.shape[0] if output.dim() else 0
        takes_tensors = any(isinstance(value, Tensor) for value in (*args, *kwargs.values()))
        is_shared = rows == 1 and isinstance(module, nn.Embedding)
        if rows == 0 or not takes_tensors or (rows % self.examples and not is_shared):
            return "its module's output has no axis of examples"
        return None if self._is_known_layout(module, rows // self.examples) else "its rows are not examples"

    def _is_known_layout(self, module: nn.Module, rows: int) -> bool:
        """Several rows for each example (tokens, windows) must stay in proportion to the size of an example.

        Else they may be the tokens of all texts without their padding, whose number is a multiple of N by accident.
        """
        if rows <= 1 or self.examples == 1:
            return True
        proportion = str(Fraction(rows, self._numbers))
        known = self.layouts.setdefault(self._owned(module)[0], [])
        if self.kept is not None and proportion not in known:
            known.append(proportion)
        return proportion in known

    def _passing(self, *call: object) -> None:
        # Differentiating a module alone calls it once more, which must not look like checkpointing.
        self._in_backward = False
        try:
            self._take(*call)
        finally:
            self._in_backward = True

    def _take(self, module: nn.Module, args: tuple, kwargs: dict, versions: list, gradient: Tensor) -> None:
        names = {name: self.names[p] for name, p in module.named_parameters(recurse=False)}
        wanted = {own: name for own, name in names.items() if self._is_wanted(name)}
        if not wanted:
            return
        if any(tensor._version != version for tensor, version in versions):
            for name in wanted.values():
                self._fail(name, "its module's input was changed in place")
            return
        # The accumulators' dtype, and so the precision of everything but the model's own passes.
        dtype = next(self.totals[name].dtype for name in wanted.values())
        call = Call(module, args, kwargs, self.examples, dtype, self.scale)
        with self._giving_up(wanted.values()):
            parts = parts_of(call, gradient)
            for own, name in wanted.items():
                self._waiting[name].append(parts[own])
                if len(self._waiting[name]) == self._uses[name]:
                    self._add(name)

    def _is_wanted(self, name: str) -> bool:
        return name not in self.by_loop and (name, self.column) not in self.done

    def _add(self, name: str) -> None:
        parts = self._waiting.pop(name)
        if self._is_wanted(name):
            with self._giving_up([name]):
                # Before anything is added: where memory runs out, neither counts.
                prepared = self._prepared(name, parts)
                add_squares(self.totals[name], parts, examples=self.examples, scratch=self.scratch)
                self.done.add((name, self.column))
                if prepared:
                    self.factors.add(name, prepared)

    def _prepared(self, name: str, parts: list[Part]) -> list[tuple[str, Tensor]] | None:
        if self.factors is None or name not in self.factors.layers:
            return None
        return self.factors.prepared(name, parts, is_first=self.column == 0)

    @contextmanager
    def _giving_up(self, names: Iterable[str]) -> Iterator[None]:
        """Whatever of a module's own code, of a handler or of `torch.func` fails sends the parameters to the loop."""
        try:
            yield
        except Exception as problem:
            if is_out_of_memory(problem):
                raise
            for name in names:
                self._fail(name, f"its module cannot be differentiated alone ({str(problem).strip()[:80]})")

    def _owned(self, module: nn.Module) -> list[str]:
        return [self.names[parameter] for _, parameter in module.named_parameters(recurse=False)]

    def _give_up(self, module: nn.Module, reason: str) -> None:
        for name in self._owned(module):
            self._fail(name, reason)

    def _fail(self, name: str, reason: str) -> None:
        self.by_loop.setdefault(name, reason)


class _Entry(torch.autograd.Function):
    """The output of a module on frozen parameters and data, made part of the graph through a scalar that is not used."""

    @staticmethod
    def forward(ctx, output: Tensor, anchor: Tensor, examples: int | None) -> Tensor:
        """A copy, with one row for each example where there was one for all."""
        ctx.anchor_is_on = anchor.device
        ctx.was_shared = examples is not None
        return (output.expand(examples, *output.shape[1:]) if ctx.was_shared else output).clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        """Nothing for the anchor but the fact that it was reached."""
        through = gradient.sum(0, keepdim=True) if ctx.was_shared else gradient
        return through if ctx.needs_input_grad[0] else None, torch.zeros((), device=ctx.anchor_is_on), None
