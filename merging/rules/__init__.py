"""How the parameters of several models become one: `RULES`, each a pure function with what it needs.

Shapes: M models, one parameter of shape S. `values` is (M, *S); `weights` λ is (M,), λᵢ ≥ 0, Σᵢ λᵢ = 1 (for Fishers, up to
a factor); `fishers` F is (M, *S), F ≥ 0, floored and normalised; `fallback` gives the value (*S) of coordinates that
no model's Fisher speaks for. Rules by `layer` take matrices and Kronecker factors instead, see `kronecker`.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from merging.rules.averages import along_models, fisher, isotropic, mixing_weights, row
from merging.rules.kronecker import kfac, regmean
from merging.rules.settings import RuleSettings
from merging.rules.task_vectors import dare, slerp, task_arithmetic, ties, ugm

__all__ = ["RULES", "Rule", "RuleSettings", "along_models", "fisher", "isotropic", "mixing_weights"]


class Rule(NamedTuple):
    """A way of merging: its function, what it needs, and how it is told about.

    `unit` is what the function takes at a time: a `number` of all models (any part of a tensor), a whole `tensor`, or a
    `layer` with Kronecker factors; parameters outside of layers are then merged by the rule `rest`. `settings` are the
    fields of `RuleSettings` that it takes, `exactly` the only number of models, `weighted` whether A carries ‖g‖².
    """

    combine: Callable[..., Tensor]
    title: str
    sentence: str
    cost: str
    needs_fisher: bool = False
    needs_base: bool = False
    unit: str = "number"
    settings: tuple[str, ...] = ()
    exactly: int | None = None
    rest: str | None = None
    weighted: bool = False
    source: str = "Matena & Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022 (arXiv:2111.09832)"

    @property
    def is_plain(self) -> bool:
        """Whether it goes number by number, from models and Fishers alone."""
        return self.unit == "number" and not self.needs_base

    @property
    def needs_factors(self) -> bool:
        """Whether it needs Kronecker factors."""
        return self.unit == "layer"


_ONE_PASS = "one Fisher per model: about a training step per batch"
_FACTORS = "the same pass, with factors of two to three times the parameters per model"

RULES: dict[str, Rule] = {
    "isotropic": Rule(isotropic, "isotropic average", "The λ-weighted mean of the models.", "no estimate"),
    "fisher": Rule(
        fisher,
        "Fisher merge",
        "A mean in which each number counts by how much its model's predictions depend on it.",
        _ONE_PASS,
        needs_fisher=True,
    ),
    "row": Rule(
        row,
        "row Fisher",
        "Fisher merging with one weight for each row of a matrix.",
        _ONE_PASS,
        needs_fisher=True,
        unit="tensor",
    ),
    "kfac": Rule(
        kfac,
        "K-FAC Fisher",
        "Fisher merging with whole layers: which inputs and outputs go together counts, too.",
        _FACTORS,
        needs_fisher=True,
        unit="layer",
        settings=("damping", "shrinkage"),
        rest="fisher",
        source="Tam et al., Merging by Matching Models in Task Parameter Subspaces, TMLR 2024 (arXiv:2312.04339)",
    ),
    "regmean": Rule(
        regmean,
        "RegMean",
        "Each layer changes its models' own outputs least; the models' inputs count, their labels do not.",
        _FACTORS,
        unit="layer",
        settings=("damping", "shrinkage"),
        rest="isotropic",
        source="Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023 (arXiv:2212.09849)",
    ),
    "regmean_weighted": Rule(
        regmean,
        "weighted RegMean",
        "RegMean in which an input counts by the size of the gradient behind it.",
        _FACTORS,
        needs_fisher=True,
        unit="layer",
        settings=("damping", "shrinkage"),
        rest="fisher",
        weighted=True,
        source="Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023 (arXiv:2212.09849)",
    ),
    "ugm": Rule(
        ugm,
        "UGM",
        "Between Fisher merging and task arithmetic: H₀ is what the base's own data would say.",
        _ONE_PASS,
        needs_fisher=True,
        needs_base=True,
        unit="tensor",
        settings=("prior",),
        source="Daheim et al., Model Merging by Uncertainty-Based Gradient Matching, ICLR 2024 (arXiv:2310.12808)",
    ),
    "task_arithmetic": Rule(
        task_arithmetic,
        "task arithmetic",
        "The base plus the λ-weighted sum of what each fine-tuning added; the mean at scale 1.",
        "no estimate",
        needs_base=True,
        settings=("scale",),
        source="Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023 (arXiv:2212.04089)",
    ),
    "ties": Rule(
        ties,
        "TIES",
        "Task vectors trimmed to their largest numbers, averaged where they agree in sign.",
        "no estimate",
        needs_base=True,
        unit="tensor",
        settings=("density",),
        source="Yadav et al., TIES-Merging, NeurIPS 2023 (arXiv:2306.01708)",
    ),
    "dare": Rule(
        dare,
        "DARE",
        "Task vectors thinned at random and scaled up, then added to the base.",
        "no estimate",
        needs_base=True,
        unit="tensor",
        settings=("density", "seed"),
        source="Yu et al., Language Models are Super Mario, ICML 2024 (arXiv:2311.03099)",
    ),
    "slerp": Rule(
        slerp,
        "SLERP",
        "Two models mixed along an arc instead of a straight line.",
        "no estimate",
        unit="tensor",
        exactly=2,
        source="Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985",
    ),
}
