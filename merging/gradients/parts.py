"""What one call of a module adds to the gradient of one of its parameters, kept as factors.

A part stands for one gradient per example, G_b, of the parameter seen as a matrix (rows, columns), and never holds
all of them. A parameter that is used more than once has several parts, which are summed before they are squared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Block = tuple[slice, slice]  # rows and columns


@dataclass
class Product:
    """G_b = scale_b Σ_t left_bt right_btᵀ: a linear layer. `gradient`, one of the two, tells which tokens matter."""

    left: Float[Tensor, " B T rows"]
    right: Float[Tensor, " B T columns"]
    gradient: Tensor
    scale: Float[Tensor, " B"] | None = None
    spans: list[object] | None = field(default=None, repr=False)

    def cast(self, dtype: torch.dtype) -> "Product":
        """In this dtype, and scaled."""
        left, right = self.left.to(dtype), self.right.to(dtype)
        if self.scale is not None:
            left = left * self.scale[:, None, None]
        return Product(left, right, self.gradient)

    def prepared(self, total: Tensor) -> "Product":
        """In the total's dtype and scaled, with the tokens that matter looked up."""
        product = self.cast(total.dtype)
        product.spans = spans(self.gradient)
        return product

    def factors(self, high: int, wide: int) -> Iterator[tuple[int, list[Tensor], Sequence[Tensor]]]:
        """Every example with a gradient, its left factor in strips of rows, and its right one in strips of columns."""
        for example, span in enumerate(self.spans):
            if span is not None:
                lefts = [strip.T for strip in self.left[example, span].split(high, 1)]
                yield example, lefts, self.right[example, span].split(wide, 1)

    def write(self, example: int, block: Block, out: Tensor, *, add: bool) -> None:
        """G_b[block] into `out`, or on top of it."""
        span = self.spans[example]
        if span is None:
            if not add:
                out.zero_()
            return
        left, right = self.left[example, span, block[0]].T, self.right[example, span, block[1]]
        if add:
            out.addmm_(left, right)
        else:
            torch.mm(left, right, out=out)


@dataclass
class Lookups:
    """G_b[id] = Σ_{t: ids_bt = id} gradient_bt: rows of a table; `ignored` is a row that gets no gradient."""

    ids: Int[Tensor, " B T"]
    gradient: Float[Tensor, " B T columns"]
    ignored: int | None = None

    def summed(self, rows: int) -> tuple[Tensor, Tensor]:
        """(key, row) for every row of every example that occurs: key = b · rows + id."""
        count = len(self.ids)
        keys = self.ids + rows * torch.arange(count, device=self.ids.device)[:, None]
        keys, place = keys.flatten().unique(return_inverse=True)
        sums = self.gradient.new_zeros(len(keys), self.gradient.shape[2])
        if sums.is_cuda:
            # index_add_ adds in any order there; this one sorts first.
            sums.index_put_((place,), self.gradient.flatten(0, 1), accumulate=True)
        else:
            sums.index_add_(0, place, self.gradient.flatten(0, 1))
        if self.ignored is not None:
            sums[keys % rows == self.ignored] = 0.0
        return keys, sums

    def prepared(self, total: Tensor) -> "_Table":
        """One row per example and id, sorted."""
        keys, sums = self.summed(len(total))
        return _Table(len(total), keys, sums.to(total.dtype))


@dataclass
class _Table:
    rows: int
    keys: Tensor
    sums: Tensor

    def write(self, example: int, block: Block, out: Tensor, *, add: bool) -> None:
        """G_b[block] into `out`, or on top of it."""
        rows, columns = block
        if not add:
            out.zero_()
        edges = torch.tensor([rows.start, min(rows.stop, self.rows)], device=self.keys.device) + example * self.rows
        low, high = torch.searchsorted(self.keys, edges).tolist()
        out.index_add_(0, self.keys[low:high] - edges[0], self.sums[low:high, columns])


@dataclass
class Whole:
    """G_b themselves, made for a range of examples when asked: `blocks(start, stop)` is (stop − start, …)."""

    blocks: Callable[[int, int], Tensor]
    size: int

    def prepared(self, total: Tensor) -> "Whole":
        """Itself."""
        return self

    def write(self, example: int, block: Block, out: Tensor, *, add: bool) -> None:
        """G_b[block] into `out`, or on top of it."""
        whole = self.blocks(example, example + 1)[0]
        matrix = whole.reshape(whole.shape[0] if whole.dim() else 1, -1)[block].to(out.dtype)
        out.copy_(out + matrix if add else matrix)


@dataclass
class Patches:
    """G_b of a convolution's kernel, (out channels, in channels/groups · kernel), from its padded inputs."""

    inputs: Float[Tensor, " B channels height width"]
    gradient: Float[Tensor, " B out height width"]
    unfold: Callable[[Tensor], Tensor]  # (n, channels, height, width) -> (n, channels · kernel, places)
    groups: int = 1

    def prepared(self, total: Tensor) -> "Patches":
        """Itself."""
        return self

    def factors(self, start: int, stop: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gradients (n, groups, out/groups, places) and what the kernel saw (n, groups, columns, places)."""
        seen = self.unfold(self.inputs[start:stop].to(dtype)).unflatten(1, (self.groups, -1))
        return self.gradient[start:stop].to(dtype).flatten(2).unflatten(1, (self.groups, -1)), seen

    def write(self, example: int, block: Block, out: Tensor, *, add: bool) -> None:
        """G_b[block] into `out`, or on top of it."""
        gradient, seen = self.factors(example, example + 1, out.dtype)
        whole = torch.matmul(gradient[0], seen[0].transpose(1, 2)).flatten(0, 1)[block]
        out.copy_(out + whole if add else whole)


Part = Product | Lookups | Whole | Patches


def active_tokens(gradient: Float[Tensor, " B T d"]) -> Bool[Tensor, " B T"] | None:
    """Tokens whose gradient is not zero everywhere; None if that is all of them. One feature is asked first."""
    quiet = (gradient[..., 0] == 0).flatten()
    if not quiet.any():
        return None
    candidates = quiet.nonzero()[:, 0]
    # A norm whose square is below the smallest number adds nothing to a sum of squares.
    loud = torch.linalg.vector_norm(gradient.flatten(0, 1).index_select(0, candidates), dim=1) > 0
    quiet[candidates[loud]] = False
    return None if not quiet.any() else ~quiet.view(gradient.shape[:2])


def spans(gradient: Float[Tensor, " B T d"]) -> list[object]:
    """For every example the tokens whose gradient is not zero: a slice, an index, or None if there are none."""
    active = active_tokens(gradient)
    if active is None:
        return [slice(None)] * len(gradient)
    counts, firsts = active.sum(1).tolist(), active.byte().argmax(1).tolist()
    lasts = (active.shape[1] - active.flip(1).byte().argmax(1)).tolist()
    found: list[object] = []
    for row, count, first, last in zip(active, counts, firsts, lasts, strict=True):
        together = last - first == count
        found.append(None if not count else slice(first, last) if together else row.nonzero()[:, 0])
    return found
