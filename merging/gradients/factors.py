"""What to send backward from the logits, so that squared gradients average to the Fisher.

With z the logits, p = softmax(z) and J = ∂z/∂θ: ∂ log p(y)/∂θ = Jᵀ(e_y − p), and so
E_y[(∂ log p(y)/∂θⱼ)²] = (Jᵀ (diag(p) − ppᵀ) J)ⱼⱼ = Σ_c ((Jᵀ l_c)ⱼ)² for any l_c with
Σ_c l_c l_cᵀ = diag(p) − ppᵀ. That matrix has rank K − 1: K − 1 backward passes are exact,
and for two classes one is.
"""

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

LABELS = ("exact", "sampled", "empirical")


def columns_for(
    logits: Float[Tensor, " K"], labels: str, *, generator: numpy.random.Generator, target: int | None = None
) -> Float[Tensor, " C K"]:
    """The vectors l_c to send backward for one example, in float64.

    `exact`: K − 1 vectors, all labels weighted by the model's own p(y|x). `sampled`: one vector
    e_y − p, with y drawn from p. `empirical`: one vector e_y − p with y = `target`, the data's label.
    """
    # In float64 and on the CPU: K numbers, and float32 loses confident examples (1 − p would be 0).
    logits = logits.detach().to("cpu", torch.float64)
    probabilities = logits.softmax(0)
    if labels == "exact":
        return exact_columns(probabilities)
    if labels == "sampled":
        drawn = numpy.searchsorted(probabilities.cumsum(0).numpy(), generator.random(), side="right")
        target = min(int(drawn), len(probabilities) - 1)
    column = -probabilities
    column[target] += 1.0
    return column[None]


def exact_columns(probabilities: Float[Tensor, " K"]) -> Float[Tensor, " C K"]:
    """K − 1 vectors l_c with Σ_c l_c l_cᵀ = diag(p) − ppᵀ; for K = 2 the one vector √(p₀p₁)·(1, −1), up to sign.

    With s = √p, diag(p) − ppᵀ = diag(s)(I − ssᵀ)diag(s). The reflector that maps s onto the axis of
    its largest entry has, besides that axis, K − 1 orthonormal columns orthogonal to s; l_c is diag(s)
    times such a column. No differences of nearly equal numbers are formed, so that 1 − max p may be 1e-30.
    """
    root = probabilities.sqrt()
    largest = int(root.argmax())
    others = [index for index in range(len(root)) if index != largest]
    reflected = root.clone()
    reflected[largest] += 1.0
    columns = -torch.outer(root[others], reflected) / (1.0 + root[largest])
    columns[range(len(others)), others] += 1.0
    # In exact arithmetic −s_c, written out since 1 + s − s would round.
    columns[:, largest] = -root[others]
    return columns * root
