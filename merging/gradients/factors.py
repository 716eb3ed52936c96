"""What to send backward from the logits, so that squared gradients average to the Fisher.

With z the logits, p = softmax(z) and J = ∂z/∂θ: ∂ log p(y)/∂θ = Jᵀ(e_y − p), and so
E_y[(∂ log p(y)/∂θⱼ)²] = (Jᵀ (diag(p) − ppᵀ) J)ⱼⱼ = Σ_c ((Jᵀ l_c)ⱼ)² for any l_c with
Σ_c l_c l_cᵀ = diag(p) − ppᵀ. That matrix has rank K − 1: K − 1 backward passes are exact,
and for two classes one is. One random l with E[l lᵀ] = diag(p) − ppᵀ is right on average.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from merging.errors import FisherError

LABELS = ("auto", "exact", "rademacher", "sampled", "empirical")
# Beyond this, one random direction per example costs less and says as much as K − 1 passes.
MOST_EXACT_CLASSES = 16


@dataclass(frozen=True)
class Columns:
    """`count` cotangents of the logits for every example of a batch, each made when it is asked for.

    `column(c)` has the logits' shape, (N, K) or (N, T, K), in float64 (a language model's in float32).
    """

    count: int
    column: Callable[[int], Tensor]


@dataclass(frozen=True)
class Draws:
    """Random numbers by seed and the example's place in the data, so that batching decides nothing."""

    seed: int
    places: Sequence[int]

    def generator(self, index: int) -> numpy.random.Generator:
        """The random numbers of the example at `index` of the batch."""
        return numpy.random.Generator(numpy.random.Philox(key=self.seed, counter=[0, 0, 0, self.places[index]]))

    def uniform(self, width: int) -> Float[Tensor, " N width"]:
        """Numbers in [0, 1), `width` for each example."""
        rows = [self.generator(index).random(width) for index in range(len(self.places))]
        return torch.from_numpy(numpy.stack(rows))

    def normal(self, width: int) -> Float[Tensor, " N width"]:
        """Standard normal numbers, `width` for each example."""
        rows = [self.generator(index).standard_normal(width) for index in range(len(self.places))]
        return torch.from_numpy(numpy.stack(rows))


def resolve_labels(labels: str, classes: int, likelihood: str = "softmax") -> str:
    """`auto` is `exact` up to 16 classes, `rademacher` beyond, and `sampled` for a causal language model."""
    if labels != "auto":
        return labels
    if likelihood == "causal":
        return "sampled"
    return "exact" if classes <= MOST_EXACT_CLASSES else "rademacher"


def columns_for(
    logits: Float[Tensor, " N K"],
    labels: str,
    *,
    draws: Draws,
    likelihood: str = "softmax",
    targets: Tensor | None = None,
) -> Columns:
    """The vectors l_c to send backward, in float64 from the first step (1 − p may be 1e-30).

    `exact`: K − 1 vectors for softmax, K for independent outputs, all labels weighted by the model's own p(y|x).
    `sampled`: ∂ log p(y)/∂z with y drawn from the model. `rademacher`: a random sign for every label, l =
    s∘(ε − s(s·ε)) with s = √p; as `sampled` right on average, with less noise when there are many labels.
    `empirical`: ∂ log p(y)/∂z with y = `targets`, the data's labels: (N,) classes, or (N, K) numbers.
    `likelihood` is `softmax`; `bernoulli`, K labels that may each be true; or `gaussian`, regression with variance 1.
    """
    logits = _double(logits)
    if likelihood == "softmax":
        return _softmax_columns(logits, labels, draws, targets)
    classes = logits.shape[1]
    probabilities = logits.sigmoid() if likelihood == "bernoulli" else None
    # p(1 − p) without forming 1 − p.
    deviation = torch.ones_like(logits) if probabilities is None else (probabilities * (-logits).sigmoid()).sqrt()
    mean = logits if probabilities is None else probabilities
    if labels == "exact":
        return Columns(classes, lambda c: _axis(deviation, c))
    if labels == "rademacher":
        return _one(deviation * _signs(draws.uniform(classes)).to(logits))
    if labels == "sampled" and probabilities is None:
        return _one(draws.normal(classes).to(logits))
    drawn = draws.uniform(classes).to(logits) < mean if labels == "sampled" else targets
    return _one(drawn.to(logits) - mean)


def _softmax_columns(logits: Tensor, labels: str, draws: Draws, targets: Tensor | None) -> Columns:
    probabilities = logits.softmax(1)
    if labels == "exact":
        return exact_columns(probabilities)
    uniform = draws.uniform(logits.shape[1] if labels == "rademacher" else 1).to(logits)
    return _one(_direction(probabilities, labels, uniform, targets))


def exact_columns(probabilities: Float[Tensor, " N K"]) -> Columns:
    """K − 1 vectors l_c with Σ_c l_c l_cᵀ = diag(p) − ppᵀ; for K = 2 the one vector √(p₀p₁)·(1, −1), up to sign.

    With s = √p, diag(p) − ppᵀ = diag(s)(I − ssᵀ)diag(s). The reflector that maps s onto the axis of
    its largest entry has, besides that axis, K − 1 orthonormal columns orthogonal to s; l_c is diag(s)
    times such a column. No differences of nearly equal numbers are formed, so that 1 − max p may be 1e-30.
    """
    root = probabilities.sqrt()
    largest = root.argmax(1, keepdim=True)
    peak = root.gather(1, largest)
    reflected = root.scatter_add(1, largest, torch.ones_like(peak))

    def column(c: int) -> Tensor:
        other = c + (c >= largest).long()
        minus = -root.gather(1, other)
        values = minus * reflected / (1.0 + peak)
        values.scatter_add_(1, other, torch.ones_like(peak))
        # In exact arithmetic −s_c, written out since 1 + s − s would round.
        values.scatter_(1, largest, minus)
        return values * root

    return Columns(probabilities.shape[1] - 1, column)


def causal_columns(
    logits: Float[Tensor, " N T K"],
    labels: str,
    *,
    draws: Draws,
    counts: Int[Tensor, " N T"],
    tokens: Int[Tensor, " N T"] | None = None,
) -> Columns:
    """One cotangent for every position t of a language model that `counts`; zero for the others.

    Labels drawn independently per position, given the data's own prefix: products of two positions have mean 0,
    and so the squared gradient of the sum over positions is, on average, the sum of the tokens' Fishers.
    `empirical` takes the token that follows, in `tokens`; it keeps those products and is not the Fisher.
    """
    if labels == "exact":
        raise FisherError(
            "The exact Fisher of a language model is out of reach: expected labels of sampled, rademacher or empirical, "
            f"got exact, which is {logits.shape[2] - 1} backward passes for every token."
        )
    columns = torch.zeros(logits.shape, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
    # Example by example: T · K numbers in float64 are many.
    for index in range(len(logits)):
        places = counts[index].nonzero()[:, 0]
        probabilities = _double(logits[index, places]).softmax(1)
        width = logits.shape[2] if labels == "rademacher" else 1
        uniform = torch.from_numpy(draws.generator(index).random((len(places), width))).to(probabilities)
        targets = tokens[index, places + 1].to(probabilities.device) if labels == "empirical" else None
        columns[index, places] = _direction(probabilities, labels, uniform, targets).to(columns)
    return _one(columns)


def _double(logits: Tensor) -> Tensor:
    """On Apple's GPU, which has no float64, on the CPU."""
    return (logits.detach().cpu() if logits.device.type == "mps" else logits.detach()).double()


def _one(column: Tensor) -> Columns:
    return Columns(1, lambda c: column)


def _axis(deviation: Tensor, c: int) -> Tensor:
    column = torch.zeros_like(deviation)
    column[:, c] = deviation[:, c]
    return column


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0)


def _direction(probabilities: Tensor, labels: str, uniform: Tensor, targets: Tensor | None) -> Tensor:
    """One l for each row of probabilities (M, K)."""
    if labels == "rademacher":
        root, signs = probabilities.sqrt(), _signs(uniform)
        return root * (signs - root * (root * signs).sum(1, keepdim=True))
    if labels == "sampled":
        drawn = torch.searchsorted(probabilities.cumsum(1), uniform, right=True)[:, 0]
        # A sum of probabilities may round to less than 1.
        targets = drawn.clamp_max(probabilities.shape[1] - 1)
    return (-probabilities).scatter_add(1, targets[:, None], torch.ones_like(probabilities[:, :1]))
