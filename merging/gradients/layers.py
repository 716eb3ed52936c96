"""How the gradient of a layer's parameters follows from its input and the gradient of its output.

A handler takes a `Call` and the gradient g of its output and gives one part for each parameter that it knows.
`HANDLERS` may be extended with types of one's own; whatever has none goes through `generic`.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from merging.gradients.generic import elementwise_slope, generic_parts
from merging.gradients.parts import Lookups, Part, Patches, Product, Whole


@dataclass
class Call:
    """One call of a module that owns parameters, on a batch of `examples`.

    `scale` holds, for every example, the size of its cotangent where that was divided out (half precision).
    """

    module: nn.Module
    args: tuple
    kwargs: Mapping[str, object]
    examples: int
    dtype: torch.dtype
    scale: Tensor | None = None

    @property
    def input(self) -> Tensor:
        """The first argument, whatever its name."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    def true(self, gradient: Tensor) -> Tensor:
        """The gradient in the accumulators' dtype, times the cotangents' sizes."""
        gradient = gradient.to(self.dtype)
        if self.scale is None:
            return gradient
        each = gradient.reshape(self.examples, -1) * self.scale[:, None]
        return each.view(gradient.shape)

    def rows(self, tensor: Tensor) -> Tensor:
        """(B · m, …, d) as (B, tokens, d): an example's rows follow each other, as in Swin's windows."""
        return tensor.reshape(self.examples, -1, tensor.shape[-1])

    def vectors(self, gradients: Tensor) -> Whole:
        """A part of gradients (B, …) that are there already."""
        return Whole(lambda start, stop: gradients[start:stop], gradients[0].numel())


Handler = Callable[[Call, Tensor], dict[str, Part]]


def parts_of(call: Call, gradient: Tensor) -> dict[str, Part]:
    """One part for every parameter that the call's module itself owns, by its name there.

    Raises: whatever the module's own function raises, if neither its handler nor `torch.func` can treat it.
    """
    owned = {name for name, parameter in call.module.named_parameters(recurse=False) if parameter is not None}
    handler = _handler_for(call.module)
    parts = handler(call, gradient) if handler else {}
    missing = owned - set(parts)
    return {**parts, **generic_parts(call, gradient, missing)} if missing else parts


def _handler_for(module: nn.Module) -> Handler | None:
    kind = type(module)
    for known, handler in HANDLERS.items():
        # A subclass that computes something else is not known.
        if issubclass(kind, known) and kind.forward is known.forward:
            return handler
    library = sys.modules.get("transformers.pytorch_utils")
    if library is not None and kind is library.Conv1D:
        return _conv1d_of_gpt2
    if kind.__name__.endswith(("RMSNorm", "T5LayerNorm")) and [*module._parameters] == ["weight"]:
        return _scaling
    return None


def _linear(call: Call, gradient: Tensor) -> dict[str, Part]:
    """∂/∂W = Σ_t g_t a_tᵀ, ∂/∂b = Σ_t g_t."""
    g, a = call.rows(gradient), call.rows(call.input.detach())
    parts = {"weight": Product(g, a.to(g.dtype), g, call.scale)}
    if call.module.bias is not None:
        parts["bias"] = call.vectors(call.rows(call.true(gradient)).sum(1))
    return parts


def _conv1d_of_gpt2(call: Call, gradient: Tensor) -> dict[str, Part]:
    """A linear layer whose weight is (in, out)."""
    g, a = call.rows(gradient), call.rows(call.input.detach())
    weight = Product(a.to(g.dtype), g, g, call.scale)
    return {"weight": weight, "bias": call.vectors(call.rows(call.true(gradient)).sum(1))}


def _conv2d(call: Call, gradient: Tensor) -> dict[str, Part]:
    module: nn.Conv2d = call.module
    if gradient.shape[0] != call.examples:
        return {}

    def unfold(inputs: Tensor) -> Tensor:
        # Left, right, top, bottom; also where padding is given as "same", or is a reflection.
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padded = functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
        return functional.unfold(padded, module.kernel_size, dilation=module.dilation, stride=module.stride)

    g = call.true(gradient)
    parts = {"weight": Patches(call.input.detach(), g, unfold, module.groups)}
    if module.bias is not None:
        parts["bias"] = call.vectors(g.sum((2, 3)))
    return parts


def _layer_norm(call: Call, gradient: Tensor) -> dict[str, Part]:
    """The normalised input is computed again: (output − b)/w would break where w is near 0."""
    module: nn.LayerNorm = call.module
    normalised = functional.layer_norm(call.input.detach().to(call.dtype), module.normalized_shape, eps=module.eps)
    return _affine(call, gradient, normalised, len(module.normalized_shape))


def _rms_norm(call: Call, gradient: Tensor) -> dict[str, Part]:
    module: nn.RMSNorm = call.module
    normalised = functional.rms_norm(call.input.detach().to(call.dtype), module.normalized_shape, eps=module.eps)
    return _affine(call, gradient, normalised, len(module.normalized_shape))


def _batch_norm(call: Call, gradient: Tensor) -> dict[str, Part]:
    """In evaluation mode: the statistics are constants."""
    module: nn.BatchNorm2d = call.module
    statistics = (module.running_mean.to(call.dtype), module.running_var.to(call.dtype))
    normalised = functional.batch_norm(call.input.detach().to(call.dtype), *statistics, eps=module.eps)
    return _by_channel(call, gradient, normalised)


def _group_norm(call: Call, gradient: Tensor) -> dict[str, Part]:
    module: nn.GroupNorm = call.module
    normalised = functional.group_norm(call.input.detach().to(call.dtype), module.num_groups, eps=module.eps)
    return _by_channel(call, gradient, normalised)


def _scaling(call: Call, gradient: Tensor) -> dict[str, Part]:
    """output = weight · f(input), or (1 + weight) · f(input), in the last axis: the norms of Llama, Gemma, T5."""
    return _affine(call, gradient, elementwise_slope(call, "weight").to(call.dtype), 1)


def _affine(call: Call, gradient: Tensor, normalised: Tensor, axes: int) -> dict[str, Part]:
    g = call.true(gradient)
    shape = (call.examples, -1, *g.shape[g.dim() - axes :])
    # In place: a tensor of this size that is new costs more than the product.
    parts = {"weight": normalised.mul_(g).reshape(shape).sum(1), "bias": g.reshape(shape).sum(1)}
    return {name: call.vectors(parts[name]) for name, _ in call.module.named_parameters(recurse=False)}


def _by_channel(call: Call, gradient: Tensor, normalised: Tensor) -> dict[str, Part]:
    g = call.true(gradient)
    products = {"weight": normalised.mul_(g), "bias": g}
    return {
        name: call.vectors(products[name].reshape(call.examples, -1, g.shape[1], g[0, 0].numel()).sum((1, 3)))
        for name, _ in call.module.named_parameters(recurse=False)
    }


def _embedding(call: Call, gradient: Tensor) -> dict[str, Part]:
    module: nn.Embedding = call.module
    if module.max_norm is not None or module.scale_grad_by_freq:
        return {}
    g = call.rows(call.true(gradient))
    ids = call.input
    if ids.shape[0] == 1 and call.examples > 1:
        ids = ids.expand(call.examples, *ids.shape[1:])
    return {"weight": Lookups(ids.reshape(call.examples, -1), g, module.padding_idx)}


HANDLERS: dict[type[nn.Module], Handler] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
    nn.Conv2d: _conv2d,
    nn.RMSNorm: _rms_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.GroupNorm: _group_norm,
}
