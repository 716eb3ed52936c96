"""The numbers behind the pictures: Fishers by layer, shares, similarities, distances, closed forms."""

from merging.diagnostics.costs import Cost, Costs, measure_costs
from merging.diagnostics.distances import Distances, distances_moved
from merging.diagnostics.gaussians import Gaussian, Optimum, optima
from merging.diagnostics.maps import FisherMap, TensorFacts, fisher_map, tensor_facts
from merging.diagnostics.matrix import TaskMatrix, task_matrix
from merging.diagnostics.mixing import FisherPercentiles, MixingHistogram, fisher_percentiles, mixing_histogram
from merging.diagnostics.planes import LossPlane, loss_plane
from merging.diagnostics.quality import FisherQuality, fisher_quality
from merging.diagnostics.similarity import Similarity, similarity
from merging.diagnostics.tradeoffs import COSTS, Tradeoff, front, tradeoffs
from merging.diagnostics.uses import GrowingMerge, ShareCurves, growing_merge, share_curves

__all__ = [
    "COSTS",
    "Cost",
    "Costs",
    "Distances",
    "FisherMap",
    "FisherPercentiles",
    "FisherQuality",
    "Gaussian",
    "GrowingMerge",
    "LossPlane",
    "MixingHistogram",
    "Optimum",
    "ShareCurves",
    "Similarity",
    "TaskMatrix",
    "TensorFacts",
    "Tradeoff",
    "distances_moved",
    "fisher_map",
    "fisher_percentiles",
    "fisher_quality",
    "front",
    "growing_merge",
    "loss_plane",
    "measure_costs",
    "mixing_histogram",
    "optima",
    "share_curves",
    "similarity",
    "task_matrix",
    "tensor_facts",
    "tradeoffs",
]
