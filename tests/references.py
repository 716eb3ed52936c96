"""Slow, obviously right versions of what `merging` computes."""

import copy
import decimal
import math
from collections.abc import Callable, Mapping, Sequence

import numpy
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

# Digits and exponents enough for 1e-300 squared.
EXACT = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
# One term of a Fisher: its weight, and the number whose gradient is squared.
Term = tuple[float, Tensor]


def slow_fisher(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    without: Sequence[str] = (),
    problem: str | None = None,
) -> dict[str, Tensor]:
    """1/N Σₙ Σ_y p(y|xₙ) (∂ log p(y|xₙ)/∂θ)² in float64: one unpadded example and one label at a time.

    `problem` is a Hugging Face `problem_type`; without one, a single output is a regression and several are classes.
    """
    return _mean_squares(model, batches, lambda logits, _: _terms(logits[0], problem), without)


def slow_sampled_fisher(
    model: nn.Module, batches: Sequence[Mapping[str, Tensor]], columns: Sequence[Tensor]
) -> dict[str, Tensor]:
    """1/N Σₙ (∂ Σₜ cₙₜ · zₙₜ/∂θ)² of a causal language model in float64, one unpadded sequence at a time.

    `columns[n]` (T − 1, K) holds one cₙₜ per position that has a next token, sequence n having T tokens: with
    cₙₜ = e_y − p, y the token at t + 1, Σₜ cₙₜ · zₙₜ has the gradient of log p(x₂ … x_T | x₁). A single token has none.
    """
    return _mean_squares(model, batches, lambda logits, n: [(1.0, (columns[n] * logits[0, :-1]).sum())])


def _terms(logits: Tensor, problem: str | None) -> list[Term]:
    if problem is None:
        problem = "regression" if len(logits) == 1 else "single_label_classification"
    if problem == "regression":
        # y ~ N(z, 1): E[(∂ log p(y)/∂θ)²] = E[((y − z) · ∂z/∂θ)²] = Σ_k (∂z_k/∂θ)².
        return [(1.0, z) for z in logits]
    if problem == "multi_label_classification":
        # Labels are independent, each score has mean 0, so that products of two labels' scores do not count.
        both = [log_probability for z in logits for log_probability in (logsigmoid(z), logsigmoid(-z))]
    else:
        both = list(logits.log_softmax(-1))
    return [(math.exp(log_probability.detach()), log_probability) for log_probability in both]


def _mean_squares(
    model: nn.Module,
    batches: Sequence[Mapping[str, Tensor]],
    terms: Callable[[Tensor, int], list[Term]],
    without: Sequence[str] = (),
) -> dict[str, Tensor]:
    model = copy.deepcopy(model).double().eval()
    parameters = {name: parameter for name, parameter in model.named_parameters() if name not in without}
    sums = {name: torch.zeros_like(parameter.detach()) for name, parameter in parameters.items()}
    examples = [example for batch in batches for example in _unpadded(batch)]
    for index, example in enumerate(examples):
        for weight, term in terms(model(**example).logits, index):
            gradients = torch.autograd.grad(term, list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name].addcmul_(gradient, gradient, value=weight)
    return {name: total / len(examples) for name, total in sums.items()}


def _unpadded(batch: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The examples of a batch, each cut to its own length."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    count = len(next(iter(inputs.values())))
    examples = []
    for index in range(count):
        example = {name: value[index : index + 1] for name, value in inputs.items()}
        if "attention_mask" in example:
            length = int(example["attention_mask"].sum())
            example = {name: value[:, :length] for name, value in example.items()}
        examples.append({name: v.double() if v.is_floating_point() else v for name, v in example.items()})
    return examples


def assert_same_fisher(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], rtol: float = 1e-5) -> None:
    """Per tensor; those that are zero but for rounding in the float64 reference must be rounding here, too."""
    assert list(found) == list(expected)
    rms = {name: float(tensor.double().square().mean().sqrt()) for name, tensor in expected.items()}
    largest = max(rms.values())
    assert largest > 0
    for name, tensor in expected.items():
        error = float((found[name].double() - tensor).square().mean().sqrt())
        if rms[name] < 1e-20 * largest:
            assert error < 1e-10 * largest, name
        else:
            assert error <= rtol * rms[name], f"{name}: {error / rms[name]:.1e}"


def slow_merge(
    models: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
    fishers: Sequence[Mapping[str, Tensor]],
    *,
    floor: float = 0.0,
    normalise: str = "none",
    zero_rule: str = "mean",
    base: Mapping[str, Tensor] | None = None,
) -> dict[str, numpy.ndarray]:
    """Σᵢ λᵢ Fᵢ θᵢ / Σᵢ λᵢ Fᵢ, coordinate by coordinate, with 60 decimal digits."""
    with decimal.localcontext(EXACT):
        lambdas = [decimal.Decimal(weight) for weight in weights]
        lambdas = [weight / sum(lambdas) for weight in lambdas]
        floored = [
            {name: [max(_exact(f), _exact(floor)) for f in fisher[name].flatten()] for name in models[0]}
            for fisher in fishers
        ]
        scaled = []
        for fisher in floored:
            entries = [f for tensor in fisher.values() for f in tensor]
            scale = {"none": 1, "trace": sum(entries), "l2": sum(f * f for f in entries).sqrt()}[normalise] or 1
            scaled.append({name: [f / scale for f in tensor] for name, tensor in fisher.items()})
        merged = {}
        for name, first in models[0].items():
            flat = []
            for j in range(first.numel()):
                theta = [_exact(model[name].flatten()[j]) for model in models]
                f = [fisher[name][j] for fisher in scaled]
                denominator = sum(weight * one for weight, one in zip(lambdas, f, strict=True))
                if denominator > 0:
                    value = sum(w * one * t for w, one, t in zip(lambdas, f, theta, strict=True)) / denominator
                else:
                    value = {
                        "mean": lambda t=theta: sum(w * one for w, one in zip(lambdas, t, strict=True)),
                        "target": lambda t=theta: t[0],
                        "base": lambda name=name, j=j: _exact(base[name].flatten()[j]),
                    }[zero_rule]()
                flat.append(float(value))
            merged[name] = numpy.array(flat).reshape(tuple(first.shape))
    return merged


def _exact(number: object) -> decimal.Decimal:
    return decimal.Decimal(float(number))


def slow_predict(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> numpy.ndarray:
    """Probabilities (N, K), one example at a time."""
    rows = []
    with torch.no_grad():
        for batch in batches:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            for index in range(len(next(iter(inputs.values())))):
                logits = model.eval()(**{name: value[index : index + 1] for name, value in inputs.items()}).logits
                rows.append(logits[0].softmax(-1).numpy())
    return numpy.stack(rows)


def slow_mcnemar(only_first: int, only_second: int) -> float:
    """The probability, when every discordant example is a fair coin, of a count no more likely than the one seen."""
    n = only_first + only_second
    chances = [math.comb(n, k) for k in range(n + 1)]
    return sum(chance for chance in chances if chance <= chances[only_first]) / 2**n


def slow_wilson(correct: int, n: int) -> tuple[float, float]:
    """The two p with |correct/n − p| = z √(p(1 − p)/n), z = 1.959964, found by bisection."""
    z, share = 1.959963984540054, correct / n

    def outside(p: float) -> bool:
        return abs(share - p) > z * math.sqrt(p * (1 - p) / n)

    def edge(far: float) -> float:
        near = share
        for _ in range(200):
            middle = (near + far) / 2
            near, far = (near, middle) if outside(middle) else (middle, far)
        return near

    # At p = 0 and 1 the right side is 0, so that a share of exactly 0 or 1 is its own edge there.
    return (edge(0.0) if correct else 0.0), (edge(1.0) if correct < n else 1.0)
