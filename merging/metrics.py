"""Accuracy with its interval, and the paired test between two methods."""

from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy
from jaxtyping import Bool


@dataclass(frozen=True)
class Score:
    """A metric on `n` examples with its 95 % interval; values are fractions, 0 to 1."""

    metric: str
    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, object]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PairedTest:
    """McNemar's exact test: `only_first` examples that the first method alone gets right, and the two-sided p-value."""

    only_first: int
    only_second: int
    p_value: float


def accuracy(correct: Bool[numpy.ndarray, " N"]) -> Score:
    """The share of correct predictions, with the Wilson score interval.

    Source: Wilson 1927, by SciPy.
    """
    return score_of(float(numpy.sum(correct)), len(correct))


def mean_accuracy(correct: list[Bool[numpy.ndarray, " N"]]) -> Score:
    """The mean accuracy of several models on the same N examples.

    The interval is that of one model with this accuracy: the models share their examples, which are
    therefore not counted more than once.
    """
    return score_of(float(numpy.mean([numpy.sum(one) for one in correct])), len(correct[0]))


def paired_test(first: Bool[numpy.ndarray, " N"], second: Bool[numpy.ndarray, " N"]) -> PairedTest:
    """McNemar's exact test of whether two methods are right equally often on the same examples.

    Source: McNemar 1947; the discordant examples are binomial with p = ½ under the null hypothesis.
    """
    only_first = int(numpy.sum(first & ~second))
    only_second = int(numpy.sum(second & ~first))
    return PairedTest(only_first, only_second, _sign_test(only_first, only_first + only_second))


def score_of(correct: float, count: int) -> Score:
    """`correct` of `count`, which need not be whole, with the Wilson score interval."""
    # The Wilson interval is defined for whole counts; a mean of several models is rounded outwards.
    low, high = _wilson(int(numpy.floor(correct)), count)[0], _wilson(int(numpy.ceil(correct)), count)[1]
    return Score("accuracy", correct / count, low, high, count)


# SciPy takes 2 ms for each of these; a move of a slider needs twenty.
@lru_cache(maxsize=4096)
def _wilson(successes: int, count: int) -> tuple[float, float]:
    from scipy.stats import binomtest  # a second of import time, which the page's start does not need

    interval = binomtest(successes, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@lru_cache(maxsize=4096)
def _sign_test(successes: int, count: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(successes, count).pvalue) if count else 1.0
