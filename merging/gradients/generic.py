"""Per-example gradients of any module's own parameters, by differentiating that module alone once more."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap
from torch.utils import _pytree as pytree

from merging.gradients.parts import Part, Whole

if TYPE_CHECKING:
    from merging.gradients.layers import Call


def generic_parts(call: "Call", gradient: Tensor, names: Iterable[str]) -> dict[str, Part]:
    """One part for each named parameter of the call's module: the vmap of its vector-Jacobian product.

    Where `torch.func.vmap` cannot follow the module, its examples are taken one by one.
    """
    own = {name: call.module._parameters[name].detach() for name in sorted(names)}
    leaves, structure = pytree.tree_flatten((call.args, dict(call.kwargs)))
    split = [_is_split(leaf, call.examples) for leaf in leaves]
    batched = [_by_example(leaf.detach(), call.examples) for leaf, each in zip(leaves, split, strict=True) if each]
    outputs = _by_example(gradient, call.examples)

    def product(g: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        given = iter(inputs)
        args, kwargs = pytree.tree_unflatten(
            [next(given) if each else leaf for leaf, each in zip(leaves, split, strict=True)], structure
        )
        return grad(lambda own: (functional_call(call.module, own, args, kwargs) * g).sum())(own)

    def blocks(start: int, stop: int) -> dict[str, Tensor]:
        rows = [tensor[start:stop] for tensor in (outputs, *batched)]
        try:
            return vmap(product)(*rows)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever of torch or of the module vmap cannot follow
            each = [product(*example) for example in zip(*rows, strict=True)]
            return {name: torch.stack([one[name] for one in each]) for name in own}

    shared = _last(blocks)
    # All of the module's parameters come out of one call, so that the size of a block is theirs together.
    size = max(1, sum(tensor.numel() for tensor in own.values()))

    def part(name: str) -> Whole:
        return Whole(lambda start, stop: _scaled(shared(start, stop)[name].to(call.dtype), call, start, stop), size)

    return {name: part(name) for name in own}


def elementwise_slope(call: "Call", name: str) -> Tensor:
    """∂ output / ∂ parameter, for a parameter that each output multiplies one entry of."""
    weight = call.module._parameters[name].detach()
    args, kwargs = pytree.tree_map_only(Tensor, torch.detach, (call.args, dict(call.kwargs)))
    _, slope = jvp(
        lambda value: functional_call(call.module, {name: value}, args, kwargs), (weight,), (torch.ones_like(weight),)
    )
    return slope


def _last(blocks: Callable[[int, int], dict[str, Tensor]]) -> Callable[[int, int], dict[str, Tensor]]:
    kept: dict[tuple[int, int], dict[str, Tensor]] = {}

    def remembered(start: int, stop: int) -> dict[str, Tensor]:
        if (start, stop) not in kept:
            kept.clear()
            kept[start, stop] = blocks(start, stop)
        return kept[start, stop]

    return remembered


def _scaled(gradients: Tensor, call: "Call", start: int, stop: int) -> Tensor:
    if call.scale is None:
        return gradients
    return gradients * call.scale[start:stop].view(-1, *[1] * (gradients.dim() - 1))


def _is_split(leaf: object, examples: int) -> bool:
    """Whether an argument has rows of its own for every example; the check on the first batch finds accidents."""
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] > 0 and leaf.shape[0] % examples == 0


def _by_example(tensor: Tensor, examples: int) -> Tensor:
    """(B · m, …) as (B, m, …)."""
    return tensor.reshape(examples, -1, *tensor.shape[1:])
