"""Squares of per-example gradients, added to a parameter's total without ever holding a batch of them."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from merging.gradients.fused import add_fused_squares, can_fuse, uses_tensor_cores
from merging.gradients.parts import Lookups, Part, Patches, Product, Whole

# What is squared at a time on a CPU, in numbers, and how many columns of it. With its total and the examples' factors it
# stays in a processor's second cache (2 MB): measured over 64 K to 1 M numbers on BERT-base.
BLOCK = 147_456
WIDE = 768
# The same for what is not a product, or a small one: 2.4 MB in float32.
CHUNK = 589_824
# On a GPU without the fused kernel: 50 MB.
GPU_NUMBERS = 12_582_912
# On a CPU smaller matrices go through one batched product, larger ones example by example (measured: the crossing
# lies between 128 × 128 and 256 × 256).
SMALL_MATRIX = 20_000


class Scratch:
    """Memory that is written again and again: on a CPU new memory costs more than what is computed in it."""

    def __init__(self):
        self._kept: dict[object, Tensor] = {}

    def like(self, total: Tensor, numbers: int) -> Tensor:
        """So many numbers in the total's dtype and on its device, with anything in them."""
        key = total.dtype, total.device
        if key not in self._kept or self._kept[key].numel() < numbers:
            self._kept[key] = total.new_empty(numbers)
        return self._kept[key][:numbers]


def add_squares(total: Tensor, parts: Sequence[Part], *, examples: int, scratch: Scratch) -> None:
    """Adds Σ_b (Σ_parts G_b)² to `total`, a parameter's accumulator.

    Whatever it needs is allocated before the first number is added, so that running out of memory changes nothing.
    """
    matrix = total if total.dim() == 2 else total.view(total.shape[0] if total.dim() else 1, -1)
    kinds = {type(part) for part in parts}
    if kinds == {Whole} and len(parts) == 1:
        _add_whole(total, parts[0], examples)
    elif kinds == {Patches} and len(parts) == 1:
        _add_patches(matrix, parts[0], examples, scratch)
    elif kinds == {Product} and (matrix.is_cuda or len(parts) == 1):
        _add_product(matrix, _joined(parts), scratch)
    elif kinds == {Lookups}:
        ids, gradients = ([getattr(part, name) for part in parts] for name in ("ids", "gradient"))
        keys, sums = Lookups(torch.cat(ids, 1), torch.cat(gradients, 1), parts[0].ignored).summed(len(matrix))
        matrix.index_put_((keys % len(matrix),), sums.to(total.dtype).square_(), accumulate=True)
    else:
        prepared = [part.prepared(matrix) for part in parts]
        (_add_products if kinds == {Product} else _add_by_example)(matrix, prepared, examples, scratch)


def _joined(parts: Sequence[Product]) -> Product:
    """A sum of products is one product over more tokens."""
    if len(parts) == 1:
        return parts[0]
    left, right = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("left", "right"))
    gradient = left if parts[0].gradient is parts[0].left else right
    return Product(left, right, gradient, parts[0].scale)


def _add_product(total: Tensor, part: Product, scratch: Scratch) -> None:
    if part.left.shape[1] == 1:
        part = part.cast(total.dtype)
        _add_single_tokens(total, part.left[:, 0], part.right[:, 0])
    elif _is_fused(part):
        left, right = part.left, part.right.to(part.left.dtype)
        # The kernel looks for tokens without a gradient in its first factor.
        factors = (total, left, right) if part.gradient is part.left else (total.T, right, left)
        add_fused_squares(*factors, part.scale)
    elif total.is_cuda:
        part = part.cast(total.dtype)
        _add_by_rows(total, part.left, part.right)
    else:
        part = part.prepared(total)
        single = _single_tokens(part)
        if single is not None:
            _add_single_tokens(total, *single)
        elif total.numel() <= SMALL_MATRIX:
            _add_by_block(total, part.left, part.right, scratch)
        else:
            _add_products(total, [part], len(part.left), scratch)


def _is_fused(part: Product) -> bool:
    """Where the kernel is expected to be the faster one: on tensor cores, with rows that are read 16 bytes at a time."""
    if not can_fuse(part.left):
        return False
    if part.left.dtype == torch.float32:
        return part.left.device.type == "cpu" or uses_tensor_cores()
    return part.left.shape[2] % 8 == 0 and part.right.shape[2] % 8 == 0


def _add_products(total: Tensor, parts: Sequence[Product], examples: int, scratch: Scratch) -> None:
    """On a CPU: a block of a product that stays in the cache, squared there. All views are made before the loop."""
    high, wide = _block(total)
    buffer = scratch.like(total, high * wide)
    by_example: list[list] = [[] for _ in range(examples)]
    for part in parts:
        for example, lefts, rights in part.factors(high, wide):
            by_example[example].append((lefts, rights))
    for i, strip in enumerate(total.split(high)):
        for j, squares in enumerate(strip.split(wide, 1)):
            out = buffer[: squares.numel()].view(squares.shape)
            for products in by_example:
                for position, (lefts, rights) in enumerate(products):
                    if position:
                        out.addmm_(lefts[i], rights[j])
                    else:
                        torch.mm(lefts[i], rights[j], out=out)
                if products:
                    squares.addcmul_(out, out)


def _block(total: Tensor) -> tuple[int, int]:
    rows, columns = total.shape
    wide = min(columns, WIDE)
    return min(rows, max(1, BLOCK // wide)), wide


def _add_by_example(total: Tensor, parts: Sequence, examples: int, scratch: Scratch) -> None:
    """On a CPU, sums of different kinds of parts: a tied embedding and head."""
    rows, columns = total.shape
    high, wide = _block(total)
    buffer = scratch.like(total, high * wide)
    for top, left in itertools.product(range(0, rows, high), range(0, columns, wide)):
        block = slice(top, min(top + high, rows)), slice(left, min(left + wide, columns))
        squares = total[block]
        out = buffer[: squares.numel()].view(squares.shape)
        for example in range(examples):
            for position, part in enumerate(parts):
                part.write(example, block, out, add=position > 0)
            squares.addcmul_(out, out)


def _add_by_block(total: Tensor, left: Tensor, right: Tensor, scratch: Scratch) -> None:
    """On a CPU, small matrices: a few examples at a time."""
    count = min(len(left), max(1, CHUNK // total.numel()))
    buffer = scratch.like(total, count * total.numel()).view(count, *total.shape)
    sums = torch.empty_like(total)
    for start in range(0, len(left), count):
        out = buffer[: len(left[start : start + count])]
        torch.bmm(left[start : start + count].transpose(1, 2), right[start : start + count], out=out)
        torch.sum(out.square_(), 0, out=sums)
        total.add_(sums)


def _add_by_rows(total: Tensor, left: Tensor, right: Tensor, *, numbers: int = GPU_NUMBERS) -> None:
    """On a GPU without the fused kernel: all examples of some rows, then one pass that reads them once."""
    examples, columns = len(left), total.shape[1]
    step = min(len(total), max(1, numbers // (examples * columns)))
    buffer = total.new_empty(examples * step * columns)
    norms = total.new_empty(step, columns)
    for start in range(0, len(total), step):
        stop = min(start + step, len(total))
        out = buffer[: examples * (stop - start) * columns].view(examples, stop - start, columns)
        torch.bmm(left[:, :, start:stop].transpose(1, 2), right, out=out)
        torch.linalg.vector_norm(out, dim=0, out=norms[: stop - start])
        total[start:stop].addcmul_(norms[: stop - start], norms[: stop - start])


def _add_whole(total: Tensor, part: Whole, examples: int) -> None:
    squares = torch.zeros_like(total)
    count = max(1, CHUNK // part.size)
    for start in range(0, examples, count):
        block = part.blocks(start, min(start + count, examples)).to(total.dtype)
        squares.add_(block.square().sum(0).view_as(total))
    total.add_(squares)


def _add_patches(total: Tensor, part: Patches, examples: int, scratch: Scratch) -> None:
    squares = torch.zeros_like(total)
    places, columns = part.gradient[0, 0].numel(), total.shape[1] * part.groups
    count = max(1, CHUNK // (places * columns))
    for start in range(0, examples, count):
        gradient, seen = part.factors(start, min(start + count, examples), total.dtype)
        if part.groups == 1:
            left, right = gradient[:, 0].transpose(1, 2), seen[:, 0].transpose(1, 2)
            _add_product(squares, Product(left, right, left), scratch)
        else:
            squares.add_(torch.matmul(gradient, seen.transpose(2, 3)).square_().sum(0).view_as(total))
    total.add_(squares)


def _add_single_tokens(total: Tensor, left: Tensor, right: Tensor) -> None:
    """One token each: (l rᵀ)² = l² (r²)ᵀ."""
    total.addmm_((left * left).T, right * right)


def _single_tokens(part: Product) -> tuple[Tensor, Tensor] | None:
    """Left and right of the one token that matters in each example, if no example has more than one."""
    picked = [(index, span.start) for index, span in enumerate(part.spans) if span is not None and _is_single(span)]
    if len(picked) < sum(span is not None for span in part.spans):
        return None
    index, token = torch.tensor(picked, dtype=torch.long).reshape(-1, 2).T
    return part.left[index, token], part.right[index, token]


def _is_single(span: object) -> bool:
    return isinstance(span, slice) and span.start is not None and span.stop - span.start == 1
