"""Weights on the simplex: what each of them gives, and the best ones."""

from merging.search.exploration import RULES, Exploration, explore, planned_points, rules_of, trial_count
from merging.search.points import first_points, lattice, map_points, rounded
from merging.search.trials import (
    OBJECTIVES,
    TASK,
    Trial,
    Trials,
    best_of,
    constant_trials,
    mean_over_tasks,
    objectives_of,
    try_once,
)
from merging.search.weights import SearchResult, candidate_weights, search_weights

__all__ = [
    "OBJECTIVES",
    "RULES",
    "TASK",
    "Exploration",
    "SearchResult",
    "Trial",
    "Trials",
    "best_of",
    "candidate_weights",
    "constant_trials",
    "explore",
    "first_points",
    "lattice",
    "map_points",
    "mean_over_tasks",
    "objectives_of",
    "planned_points",
    "rounded",
    "rules_of",
    "search_weights",
    "trial_count",
    "try_once",
]
