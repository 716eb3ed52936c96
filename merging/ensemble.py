"""Output ensembling: the mean of predicted probabilities."""

from collections.abc import Sequence

import numpy
from jaxtyping import Float


def average_probabilities(probabilities: Sequence[Float[numpy.ndarray, " N K"]]) -> Float[numpy.ndarray, " N K"]:
    """Σᵢ pᵢ(y|x) / M over the M models: M forward passes instead of the merged model's one.

    With equal label sets these are the models' own outputs; with different ones, for each task, the
    outputs of the task's head on each of the M bodies.
    """
    return numpy.mean(numpy.stack(probabilities), axis=0)
