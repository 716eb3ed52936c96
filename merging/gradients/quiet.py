"""Linear layers whose backward pass leaves out the tokens that have no gradient.

Padding has none, nor has in the last layer whatever the head does not read; autograd would multiply their zeros with the weight.
"""

import torch
from torch import Tensor, nn

from merging.gradients.parts import active_tokens

# Gathering and spreading the others costs as much as this share of the tokens saves.
WORTH = 0.05


def leaving_out_quiet_tokens(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    """The output of a linear layer (or GPT-2's Conv1D) on tokens, with such a backward pass; any other output as it is.

    On a CPU only: elsewhere counting the tokens waits for the device.
    """
    kind = type(module)
    is_conv1d = kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"
    if not (kind is nn.Linear or is_conv1d) or len(args) != 1 or not output.is_cpu or output.dim() != 3:
        return output
    (inputs,), weight = args, module.weight
    # Another hook may have changed what the layer gave.
    is_plain = type(weight) is nn.Parameter and not weight.requires_grad and len(module._forward_hooks) == 1
    # Half precision and autocast keep the sums that autograd makes.
    is_wide = inputs.dtype == weight.dtype == output.dtype and inputs.dtype in (torch.float32, torch.float64)
    if not (is_plain and is_wide and inputs.requires_grad and output.grad_fn is not None):
        return output
    return _Linear.apply(inputs, weight.T if is_conv1d else weight, output.detach())


class _Linear(torch.autograd.Function):
    """A Wᵀ (+ b), which is there already; its gradient with respect to A is G W."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, output: Tensor) -> Tensor:
        """The same numbers in a tensor that is no view, which layers may change in place."""
        ctx.save_for_backward(weight)
        return output.new_empty(0).set_(output)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """(B, T, out) to (B, T, in)."""
        (weight,) = ctx.saved_tensors
        active = active_tokens(gradient)
        if active is None or active.sum() > (1 - WORTH) * active.numel():
            return gradient @ weight, None, None
        loud, quiet = active.flatten().nonzero()[:, 0], active.logical_not().flatten().nonzero()[:, 0]
        through = gradient.new_empty(active.numel(), weight.shape[1])
        through.index_copy_(0, loud, gradient.flatten(0, 1).index_select(0, loud) @ weight)
        through.index_fill_(0, quiet, 0.0)
        return through.view(*active.shape, -1), None, None
