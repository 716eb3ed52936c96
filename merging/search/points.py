"""Places on the simplex of weights: grids, lattices, where a search begins, and uniform draws."""

import itertools
import math
from collections.abc import Sequence

import numpy

Weights = tuple[float, ...]

# Matena & Raffel: a grid of 51 points for two models.
GRID_POINTS = 51
LATTICE_STEPS = 10  # for three models: 66 points
# Weights are searched in steps that a slider can hold.
DIGITS = 4


def lattice(count: int, steps: int) -> list[Weights]:
    """All weights of `count` models that are multiples of 1/steps: C(steps + count − 1, count − 1) of them."""
    bars = itertools.combinations(range(steps + count - 1), count - 1)
    ends = [(-1, *chosen, steps + count - 1) for chosen in bars]
    return [tuple((right - left - 1) / steps for left, right in itertools.pairwise(own)) for own in ends]


def map_points(count: int) -> list[Weights]:
    """What a picture of all weights needs: the paper's grid for two models, a lattice for three; nothing for more."""
    if count == 2:
        return lattice(2, GRID_POINTS - 1)
    return lattice(3, LATTICE_STEPS) if count == 3 else []


def first_points(count: int, number: int) -> list[Weights]:
    """Where a search begins: the centre, the corners, then the middles of edges, of faces, …, as far as `number` reaches."""
    sizes = [count, *range(1, count)]
    faces = (chosen for size in sizes for chosen in itertools.combinations(range(count), size))
    taken = itertools.islice(faces, max(number, 1))
    return [tuple(1 / len(face) if model in face else 0.0 for model in range(count)) for face in taken]


def draws(count: int, number: int, *, seed: int) -> list[Weights]:
    """Draws from the uniform Dirichlet, rounded."""
    found = numpy.random.default_rng(seed).dirichlet(numpy.ones(count), number)
    return [rounded(draw) for draw in found]


def rounded(weights: Sequence[float]) -> Weights:
    """Multiples of 1/10 000 of sum 1 next to the weights, by largest remainders."""
    units, total = 10**DIGITS, math.fsum(weights)
    exact = [units * float(weight) / total for weight in weights]
    whole = [math.floor(value) for value in exact]
    most_left = sorted(range(len(exact)), key=lambda index: whole[index] - exact[index])
    for index in most_left[: units - sum(whole)]:
        whole[index] += 1
    return tuple(value / units for value in whole)
