"""Slow, obviously right versions of what `merging` computes."""

import copy
import decimal
import math
from collections.abc import Mapping, Sequence

import numpy
import torch
from torch import Tensor, nn

# Digits and exponents enough for 1e-300 squared.
EXACT = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def slow_fisher(
    model: nn.Module, batches: Sequence[Mapping[str, Tensor]], without: Sequence[str] = ()
) -> dict[str, Tensor]:
    """1/N Σₙ Σ_y p(y|xₙ) (∂ log p(y|xₙ)/∂θ)² in float64: one unpadded example and one label at a time."""
    model = copy.deepcopy(model).double().eval()
    parameters = {name: parameter for name, parameter in model.named_parameters() if name not in without}
    sums = {name: torch.zeros_like(parameter.detach()) for name, parameter in parameters.items()}
    examples = [example for batch in batches for example in _unpadded(batch)]
    for example in examples:
        log_probabilities = model(**example).logits[0].log_softmax(-1)
        for log_probability in log_probabilities:
            gradients = torch.autograd.grad(
                log_probability, list(parameters.values()), retain_graph=True, allow_unused=True
            )
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name].addcmul_(gradient, gradient, value=math.exp(log_probability.detach()))
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
