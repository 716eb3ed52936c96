"""Squared per-example gradients of classifiers."""

from merging.gradients.check import FallbackWarning
from merging.gradients.factors import LABELS, resolve_labels
from merging.gradients.layers import HANDLERS
from merging.gradients.squares import SquaredGradients

__all__ = ["HANDLERS", "LABELS", "FallbackWarning", "SquaredGradients", "resolve_labels"]
