"""Weights on the simplex: what each of them gives, and the best ones."""

from merging.search.weights import SearchResult, candidate_weights, search_weights

__all__ = ["SearchResult", "candidate_weights", "search_weights"]
