"""Per-example squared gradients of classifiers."""

from merging.gradients.factors import LABELS, columns_for
from merging.gradients.per_example import squared_gradients

__all__ = ["LABELS", "columns_for", "squared_gradients"]
