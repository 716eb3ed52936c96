"""Sums of squared gradients: whatever the batches, the memory, the precision or the number of workers."""

import contextlib

import psutil
import pytest
import torch
from torch import nn

from merging.errors import FisherError
from merging.gradients import HANDLERS, FallbackWarning, SquaredGradients, accumulation, parts, squares
from merging.gradients.memory import Kept, is_out_of_memory
from tests import cases
from tests.references import slow_fisher

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


def _sums(model, batches, labels="auto", **settings):
    with SquaredGradients(model, labels, **settings) as found:
        for batch in batches:
            found.add(batch)
    return found


def _assert_close(found, expected, rtol=1e-5):
    largest = max(float(tensor.max()) for tensor in expected.values())
    for name, tensor in expected.items():
        difference = (found[name].double() - tensor.double()).norm()
        assert difference <= rtol * tensor.double().norm() + 1e-9 * largest, name


@pytest.mark.parametrize("name", ["bert-10", "gpt2-2", "vit-10", "albert-3", "tied-3"])
def test_a_batch_that_does_not_fit_is_cut_and_gives_the_same(name, monkeypatch):
    (batch,) = cases.batches_for(name, 16)
    model = cases.model_case(name)
    whole = _sums(model, [batch])
    monkeypatch.setattr(squares, "free_bytes", lambda device: 1.0)
    with SquaredGradients(model) as cut:
        assert len(list(cut.parts(batch))) == 16
        cut.add(batch)
    assert cut.examples == whole.examples == 16
    _assert_close(cut.sums, whole.sums)


def test_the_size_of_a_batch_follows_from_what_the_forward_pass_keeps(monkeypatch):
    (batch,) = cases.batches_for("vit-10", 16)
    model = cases.model_case("vit-10")
    with SquaredGradients(model) as found:
        found.add(batch)
        each = found.about()["bytes_each"] * batch["pixel_values"][0].numel()
    kept = Kept(model)
    with kept.during_forward():
        model.requires_grad_(True)
        model(**batch)
    assert 0.5 * kept.bytes < 16 * each < 1.5 * kept.bytes
    for room, expected in [(16.5, [16]), (8.5, [8, 8]), (5.0, [4] * 4), (0.1, [1] * 16)]:
        monkeypatch.setattr(squares, "free_bytes", lambda device, room=room: room * each)
        with SquaredGradients(model) as found:
            assert [len(part["pixel_values"]) for part in found.parts(batch)] == expected


def test_an_example_without_a_gradient_adds_nothing_whatever_the_buffer_held():
    gradient = torch.ones(2, 3, 200)
    gradient[1] = 0.0
    part = parts.Product(gradient, torch.ones(2, 3, 200), gradient).prepared(torch.zeros(200, 200))
    out = torch.full((200, 200), torch.nan)
    whole = slice(0, 200), slice(0, 200)
    part.write(1, whole, out, add=False)
    assert not out.any()
    part.write(0, whole, out, add=True)
    part.write(1, whole, out, add=True)
    assert torch.equal(out, torch.full((200, 200), 3.0))


def test_all_examples_of_some_rows_at_a_time_are_the_same_sum():
    """The batched form for GPUs, which computes on a CPU all the same."""
    left, right = torch.randn(5, 7, 300), torch.randn(5, 7, 400)
    total = torch.rand(300, 400)
    expected = total.double() + torch.einsum("bto,bti->boi", left.double(), right.double()).square().sum(0)
    for budget in (2_000, accumulation.CHUNK):
        found = total.clone()
        accumulation._add_by_rows(found, left, right, numbers=budget)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_padding_that_a_whole_part_shares_is_cut_off():
    batch = cases.batches_for("bert-2", 3)[1]
    longer = {name: nn.functional.pad(value, (0, 9)) for name, value in batch.items()}
    with SquaredGradients(cases.model_case("bert-2")) as found:
        (part,) = found.parts(longer)
    assert part["input_ids"].shape == batch["input_ids"].shape


@pytest.mark.parametrize("problem", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize("after", [1, 2, 7, 20, 30, 41])
@pytest.mark.parametrize("name", ["bert-10", "albert-3"])
def test_running_out_of_memory_loses_and_doubles_nothing(name, after, problem, monkeypatch):
    """Memory runs out at the `after`-th sum of squares of every part of more than two examples."""
    (batch,) = cases.batches_for(name, 8, examples=8)
    model = cases.model_case(name)
    expected = _sums(model, [batch])
    add_squares, calls = accumulation.add_squares, []

    def scarce(total, parts, *, examples, scratch):
        calls.append(examples)
        if examples > 2 and calls.count(examples) == after:
            raise problem
        add_squares(total, parts, examples=examples, scratch=scratch)

    with SquaredGradients(model) as found:
        list(found.parts(batch))
        monkeypatch.setattr("merging.gradients.recording.add_squares", scarce)
        found.add(batch)
        assert max(len(part["input_ids"]) for part in found.parts(batch)) <= 4, "the smaller size is remembered"
    assert 4 in calls
    assert found.examples == 8
    _assert_close(found.sums, expected.sums)


def test_running_out_of_memory_in_the_forward_pass_halves_the_batch():
    class Scarce(cases.Classifier):
        def forward(self, x):
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    model = Scarce(head=nn.Linear(5, 3))
    (batch,) = cases.batches_for("softmax-3", 16)
    found = _sums(model, [batch])
    _assert_close({n: t / 16 for n, t in found.sums.items()}, slow_fisher(model, [batch]))


def test_no_memory_for_one_example_is_an_error_that_says_so():
    class Scarce(cases.Classifier):
        ready = True

        def forward(self, x):
            if not self.ready:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    model = Scarce(head=nn.Linear(5, 3))
    (batch,) = cases.batches_for("softmax-3", 4, examples=4)
    with SquaredGradients(model) as found:
        found.add(batch)
        model.ready = False
        with pytest.raises(FisherError, match="expected memory for one example and its gradients"):
            found.add(batch)
    assert found.examples == 4


def test_no_memory_in_the_loop_counts_no_example_twice():
    """The loop has added some examples by then, and halving the batch would add them again."""

    class Scarce(cases.Classifier):
        calls = None

        def forward(self, x):
            if self.calls is not None:
                self.calls.append(len(x))
                if self.calls == [4, 1, 1, 1]:
                    raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    class Borrowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.lender = nn.Linear(5, 3)

        def forward(self, x):
            return nn.functional.linear(x, self.lender.weight)

    model = Scarce(head=nn.Sequential(nn.Linear(5, 5), Borrowing()))
    (batch,) = cases.batches_for("softmax-3", 4, examples=4)
    with SquaredGradients(model) as found:
        with pytest.warns(FallbackWarning):
            found.add(batch)
        assert "head.1.lender.weight" in found.fallbacks
        model.calls = []
        with pytest.raises(FisherError, match="expected memory for one example"):
            found.add(batch)
    assert model.calls == [4, 1, 1, 1]
    assert found.examples == 4


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    assert all(is_out_of_memory(problem) for problem in OUT_OF_MEMORY)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["bert-2", "vit-10", "gpt2-3"])
def test_a_half_precision_model_is_summed_in_float32(name, dtype):
    """Its own rounding remains: 3 digits in float16, 2 in bfloat16, against float64 with the same rounded weights."""
    model = cases.model_case(name).to(dtype)
    (batch,) = cases.batches_for(name, 16)
    expected = slow_fisher(model, [batch])
    found = _sums(model, [batch])
    assert {tensor.dtype for tensor in found.sums.values()} == {torch.float32}
    assert not found.fallbacks
    tolerance = 0.02 if dtype == torch.float16 else 0.15
    total = torch.cat([tensor.flatten() for tensor in expected.values()])
    error = torch.cat([(found.sums[n] / 16 - tensor).flatten() for n, tensor in expected.items()])
    assert error.norm() < tolerance * total.norm()


@pytest.mark.parametrize("confidence", [5.0, 15.0, 20.0])
def test_confident_examples_do_not_underflow_in_half_precision(confidence):
    """√(p₀p₁) is e^-20: 2e-9, and its square 4e-18, which float16 both hold as 0."""
    model = cases.softmax_regression(2, 4).half()
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 4) * confidence / 2)
        model.head.bias.zero_()
    batch = {"x": torch.full((3, 4), 0.5)}
    found = _sums(model, [batch])
    expected = slow_fisher(model, [batch])
    for name, tensor in expected.items():
        torch.testing.assert_close(found.sums[name].double() / 3, tensor, rtol=2e-3, atol=0)


@pytest.mark.parametrize("labels", ["exact", "rademacher", "sampled"])
def test_workers_on_parts_of_the_data_add_up_to_one(labels):
    batches = cases.batches_for("vit-10", 4)
    model = cases.model_case("vit-10")
    alone = _sums(model, batches, labels, seed=3)
    first = _sums(model, batches[:1], labels, seed=3)
    second = _sums(model, batches[1:], labels, seed=3, place=4)
    first.merge(second.sums, second.examples)
    assert first.examples == alone.examples == 16
    _assert_close(first.sums, alone.sums, rtol=1e-6)


@pytest.mark.parametrize("name", ["bert-2", "vit-10", "albert-3", "gpt2-2"])
def test_the_same_seed_gives_the_same_bits(name):
    model, batches = cases.model_case(name), cases.batches_for(name, 16)
    one, other = (_sums(model, batches, "rademacher", seed=1) for _ in range(2))
    assert all(torch.equal(one.sums[n], other.sums[n]) for n in one.sums)


def test_rademacher_averages_to_the_exact_fisher():
    model = cases.model_case("vit-10")
    (batch,) = cases.batches_for("vit-10", 16)
    exact = _sums(model, [batch]).sums
    mean = {name: torch.zeros_like(tensor) for name, tensor in exact.items()}
    with SquaredGradients(model, "rademacher") as found:
        for _ in range(40):
            found.add(batch)
    mean = {name: tensor / 40 for name, tensor in found.sums.items()}
    error = sum(float((mean[n] - exact[n]).square().sum()) for n in exact) ** 0.5
    assert error < 0.2 * sum(float(tensor.square().sum()) for tensor in exact.values()) ** 0.5


def test_a_rule_of_ones_own_is_used(monkeypatch):
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))

        def forward(self, x):
            return self.factor * x

    used = []

    def rule(call, gradient):
        used.append(call.examples)
        return {"factor": call.vectors(call.rows(call.true(gradient) * call.input).sum(1))}

    model = cases.Classifier(head=nn.Sequential(Doubling(), nn.Linear(5, 3)))
    (batch,) = cases.batches_for("softmax-3", 16)
    expected = _sums(model, [batch])
    monkeypatch.setitem(HANDLERS, Doubling, rule)
    found = _sums(model, [batch])
    assert used
    assert not found.fallbacks
    _assert_close(found.sums, expected.sums)


def test_memory_beyond_the_sums_is_a_training_steps_activations_and_little_more():
    """Nothing of the size examples × parameters: 64 examples of a million parameters would be 256 MB."""
    model = cases.Classifier(head=nn.Sequential(nn.Linear(1024, 1024), nn.Tanh(), nn.Linear(1024, 2)))
    batch = {"x": torch.randn(64, 17, 1024)}
    model.head.register_forward_pre_hook(lambda module, args: args)

    class Pooled(cases.Classifier):
        def forward(self, x):
            out = super().forward(x)
            out.logits = out.logits.mean(1)
            return out

    model = Pooled(head=model.head)
    with SquaredGradients(model) as found:
        found.add(batch)
        with _peak() as peak:
            found.add(batch)
    activations = 4 * 64 * 17 * 1024 * 2
    assert peak[0] < 2 * activations + 64 * 2**20


@contextlib.contextmanager
def _peak():
    """The most resident memory inside beyond that before, in bytes; Linux alone can forget an earlier peak."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError as problem:
        pytest.skip(f"the peak of memory cannot be reset here: {problem}")
    before, found = psutil.Process().memory_info().rss, [0]
    yield found
    with open("/proc/self/status") as file:
        high = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    found[0] = 1024 * high - before
