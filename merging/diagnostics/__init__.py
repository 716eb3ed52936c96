"""The numbers behind the pictures: Fishers by layer, shares, similarities, distances, closed forms."""

from merging.diagnostics.maps import FisherMap, fisher_map

__all__ = ["FisherMap", "fisher_map"]
