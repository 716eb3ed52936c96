"""What cannot be estimated says so, what cannot be estimated fast is estimated slowly and says so; the model is restored."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from merging import diagonal_fisher
from merging.errors import FisherError
from merging.gradients import FallbackWarning, SquaredGradients
from tests import cases
from tests.references import slow_fisher

BATCHES = cases.batches_for("softmax-3", 8)


class Net(nn.Module):
    """A classifier of features around a layer in the middle; `change` is what its forward does between."""

    def __init__(self, middle=None, change=lambda net, x: net.middle(x)):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.middle = middle or nn.Linear(6, 6)
        self.change = change

    def forward(self, x):
        return SimpleNamespace(logits=self.head(torch.tanh(self.change(self, torch.tanh(self.first(x))))))


def _assert_right(model, fallbacks, reason="", batches=BATCHES):
    """Right to 1e-5 for every parameter; exactly `fallbacks` were computed one at a time, and were warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = diagonal_fisher(model, batches)
    for name, tensor in slow_fisher(model, batches).items():
        assert (found[name] - tensor).norm() <= 1e-5 * tensor.norm() + 1e-12, name
    assert set(found.fallbacks) == set(fallbacks)
    assert all(reason in why for why in found.fallbacks.values())
    messages = [str(warning.message) for warning in caught if warning.category is FallbackWarning]
    assert bool(messages) == bool(fallbacks)
    assert all(reason in message and "One example at a time" in message for message in messages)


def _state(model):
    hooks = [list(module._forward_hooks) + list(module._forward_pre_hooks) for module in model.modules()]
    required = [parameter.requires_grad for parameter in model.parameters()]
    return [module.training for module in model.modules()], hooks, required


class Shift(nn.Module):
    """Adds a vector, which needs no input to be differentiated."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5, -0.4]))

    def forward(self, x):
        return x + self.shift


class _Doubled(torch.autograd.Function):
    """Written before torch.func, which cannot differentiate it."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Custom(Shift):
    def forward(self, x):
        return _Doubled.apply(x * self.shift)


def test_a_module_that_cannot_be_differentiated_alone_goes_to_the_loop():
    _assert_right(Net(Custom()), ["middle.shift"], "cannot be differentiated alone")


def test_a_plain_net_needs_no_fallback():
    _assert_right(Net(), [])


def test_batch_normalisation_in_training_mode_is_put_into_evaluation_mode():
    model = Net(nn.BatchNorm1d(6)).train()
    model.middle.running_mean += 0.3
    _assert_right(model, [])
    assert model.middle.training
    assert model.middle.num_batches_tracked == 0, "the statistics were not moved"


def test_batch_normalisation_that_stays_in_training_mode_is_refused():
    class Stubborn(nn.BatchNorm1d):
        def train(self, mode=True):
            self.training = True
            return self

    model = Net(Stubborn(6))
    before = _state(model)
    with pytest.raises(FisherError, match='got "middle", which stays in training mode'):
        diagonal_fisher(model, BATCHES)
    assert _state(model) == before


def test_batch_normalisation_without_running_statistics_is_refused():
    with pytest.raises(FisherError, match='got "middle", which keeps no running statistics'):
        diagonal_fisher(Net(nn.BatchNorm1d(6, track_running_stats=False)), BATCHES)


def test_a_module_that_mixes_examples_goes_to_the_loop():
    model = Net(change=lambda net, x: net.middle(x - x.mean(0)))
    _assert_right(model, dict(model.named_parameters()), "depend on the other examples of its batch")


def _changing_its_input(net, x):
    held = x.clone()
    out = net.middle(held)
    held.mul_(2.0)
    return out + held


def test_an_input_changed_in_place_goes_to_the_loop():
    _assert_right(Net(Shift(), _changing_its_input), ["middle.shift"], "input was changed in place")


def test_an_input_changed_in_place_that_autograd_needs_is_refused_and_named():
    model = Net(change=_changing_its_input)
    before = _state(model)
    with pytest.raises(FisherError, match=r'Fisher of .*"middle.bias".* modified by an inplace operation'):
        diagonal_fisher(model, BATCHES)
    assert _state(model) == before


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_by_hand_goes_to_the_loop(reentrant):
    """Reentrant checkpoints cannot answer `torch.autograd.grad` at all, which is torch's own error."""
    model = Net(change=lambda net, x: checkpoint(net.middle, x, use_reentrant=reentrant))
    if not reentrant:
        model.middle = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        _assert_right(model, ["middle.0.weight", "middle.0.bias"], "called again during the backward pass")
        return
    before = _state(model)
    with pytest.raises(FisherError, match="use_reentrant=False"):
        diagonal_fisher(model, BATCHES)
    assert _state(model) == before


def test_a_transformer_with_gradient_checkpointing_is_as_fast_as_without():
    model = cases.model_case("bert-2")
    batches = cases.batches_for("bert-2", 4)
    expected = diagonal_fisher(model, batches)
    model.gradient_checkpointing_enable()
    model.train()
    found = diagonal_fisher(model, batches)
    assert not found.fallbacks
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert model.is_gradient_checkpointing


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_compiled_model_gives_the_originals_fisher(how):
    model = Net()
    expected = diagonal_fisher(model, BATCHES)
    compiled = torch.compile(model, backend="eager") if how == "wrapped" else model
    if how == "in place":
        model.compile(backend="eager")
    found = diagonal_fisher(compiled, BATCHES)
    assert list(found) == list(expected)
    assert not found.fallbacks
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    if how == "in place":
        assert model._compiled_call_impl is not None


def test_a_model_without_logits_is_refused():
    class Headless(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(5, 3)

        def forward(self, x):
            return {"hidden": self.first(x)}

    with pytest.raises(FisherError, match=r"expected forward\(\*\*batch\).logits .*, got a dict"):
        diagonal_fisher(Headless(), BATCHES)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "got no tensors"),
        ({"x": torch.zeros(0, 5)}, "expected tensors of one length, 1 or more"),
        ({"x": torch.zeros(2, 5), "y": torch.zeros(3, 5)}, "expected tensors of one length"),
        ({"x": "text"}, "got no tensors"),
        ({"x": torch.tensor(1.0)}, "got no tensors"),
        ({"x": torch.full((2, 5), torch.nan)}, "expected finite logits"),
        ({"x": torch.tensor([[0.0] * 5, [0.0, torch.inf, 0.0, 0.0, 0.0]])}, "for example 1 of a batch"),
    ],
    ids=["empty", "no rows", "two lengths", "no tensor", "no axis", "NaN", "infinite"],
)
def test_a_batch_that_cannot_be_used_is_refused_and_the_model_restored(batch, message):
    model = cases.model_case("softmax-3").train()
    next(model.parameters()).requires_grad_(False)
    before = _state(model)
    for batches in ([batch], [*BATCHES, batch]):
        with pytest.raises(FisherError, match=message):
            diagonal_fisher(model, batches)
        assert _state(model) == before


@pytest.mark.parametrize("where", ["first", "middle", "head"])
def test_everything_is_restored_after_an_error_in_the_model(where):
    model = Net().train()
    model.first.bias.requires_grad_(False)
    before, calls = _state(model), []

    def fail(module, args):
        calls.append(module)
        if len(calls) > 6:
            raise ValueError("a module's own error")

    handle = getattr(model, where).register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="own error"):
        diagonal_fisher(model, [*BATCHES, *BATCHES, *BATCHES, *BATCHES])
    handle.remove()
    assert _state(model) == before


def test_a_parameter_first_reached_in_a_later_batch_is_not_missed():
    """A bias that only large inputs meet, through no module's call."""

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.head, self.rare = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x):
            logits = self.head(x)
            if (x.abs() > 10).any():
                logits = logits + nn.functional.linear(x, self.rare.weight)
            return SimpleNamespace(logits=logits)

    small, large = BATCHES[0], {"x": 20 * torch.sign(BATCHES[0]["x"])}
    model = Late()
    with pytest.warns(FallbackWarning, match="used without a call of its module"):
        found = diagonal_fisher(model, [small, large])
    expected = slow_fisher(model, [small, large])
    assert expected["rare.weight"].any()
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() <= 1e-5 * tensor.norm() + 1e-12, name


def test_progress_says_how_many_parameters_are_slow():
    seen = []
    with pytest.warns(FallbackWarning):
        diagonal_fisher(
            Net(Shift(), _changing_its_input), BATCHES, on_progress=lambda fraction, text: seen.append(text)
        )
    assert seen[-1] == "16 examples, 1 of its parameters one at a time"


def test_a_first_batch_of_one_example_does_not_hide_what_mixes_examples():
    model = Net(change=lambda net, x: net.middle(x - x.mean(0)))
    single = [{"x": BATCHES[0]["x"][:1]}, *BATCHES]
    _assert_right(model, dict(model.named_parameters()), "depend on the other examples", batches=single)


def test_a_wrong_rule_is_found_and_replaced(monkeypatch):
    from merging.gradients import HANDLERS

    right = HANDLERS[nn.Linear]

    def wrong(call, gradient):
        parts = right(call, gradient)
        parts["bias"] = call.vectors(1.01 * call.rows(call.true(gradient)).sum(1))
        return parts

    monkeypatch.setitem(HANDLERS, nn.Linear, wrong)
    _assert_right(Net(), ["first.bias", "middle.bias", "head.bias"], "disagreed with those of autograd")


def test_a_model_used_in_another_thread_meanwhile_is_not_recorded():
    import threading

    model = cases.model_case("vit-2")
    batches = cases.batches_for("vit-2", 4)
    expected = diagonal_fisher(model, batches)
    stop = threading.Event()

    def predict():
        while not stop.is_set():
            with torch.no_grad():
                model(**batches[0])

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        found = [diagonal_fisher(model, batches) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    for one in found:
        assert not one.fallbacks
        assert all(torch.equal(one[name], expected[name]) for name in expected)


def test_sums_are_usable_after_leaving():
    with SquaredGradients(Net()) as found:
        found.add(BATCHES[0])
    assert found.examples == 8
    assert all((tensor >= 0).all() for tensor in found.sums.values())
