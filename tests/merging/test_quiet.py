"""The way back through linear layers without the tokens that have no gradient."""

import pytest
import torch
from torch import nn

from merging.gradients import SquaredGradients
from merging.gradients.quiet import leaving_out_quiet_tokens
from tests.references import slow_fisher


class Overwritten(nn.Module):
    """Its first layer's output is changed in place, which a view would not survive."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        """Logits (N, 3) of tokens (N, T, 4); the second half of the tokens is not read."""
        states = torch.relu_(self.second(torch.relu_(self.first(x))))
        return type("Output", (), {"logits": self.head(states[:, : x.shape[1] // 2].mean(1))})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("quiet", [[], [0], [1, 4], [0, 1, 2, 3, 4, 5]])
def test_the_gradient_is_the_plain_one_whatever_is_quiet(dtype, quiet):
    torch.manual_seed(0)
    layer = nn.Linear(5, 7).to(dtype).requires_grad_(False)
    layer.register_forward_hook(lambda module, args, output: leaving_out_quiet_tokens(module, args, output))
    inputs = torch.randn(2, 3, 5, dtype=dtype, requires_grad=True)
    gradient = torch.randn(6, 7, dtype=dtype)
    gradient[quiet] = 0.0
    output = layer(inputs)
    assert torch.equal(output, nn.functional.linear(inputs, layer.weight, layer.bias))
    (found,) = torch.autograd.grad(output, inputs, gradient.view(2, 3, 7))
    torch.testing.assert_close(found, (gradient @ layer.weight).view(2, 3, 5))
    assert not found.flatten(0, 1)[quiet].any()


def test_a_layer_that_another_hook_changes_is_left_alone():
    layer = nn.Linear(5, 7).requires_grad_(False)
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    layer.register_forward_hook(lambda module, args, output: leaving_out_quiet_tokens(module, args, output))
    inputs = torch.randn(2, 3, 5, requires_grad=True)
    (found,) = torch.autograd.grad(layer(inputs).sum(), inputs)
    torch.testing.assert_close(found, 2 * layer.weight.sum(0).expand_as(found))


def test_layers_whose_output_is_changed_in_place_need_no_loop():
    torch.manual_seed(0)
    model, batch = Overwritten().eval(), {"x": torch.randn(5, 6, 4)}
    with SquaredGradients(model, "exact") as found:
        found.add(batch)
    assert not found.fallbacks
    for name, expected in slow_fisher(model.double(), [{"x": batch["x"].double()}]).items():
        torch.testing.assert_close(found.sums[name].double() / 5, expected, rtol=1e-5, atol=1e-9)
