"""Accuracy with its interval, and the paired test between two methods."""

from dataclasses import asdict, dataclass

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
    return _score(float(numpy.sum(correct)), len(correct))


def mean_accuracy(correct: list[Bool[numpy.ndarray, " N"]]) -> Score:
    """The mean accuracy of several models on the same N examples.

    The interval is that of one model with this accuracy: the models share their examples, which are
    therefore not counted more than once.
    """
    return _score(float(numpy.mean([numpy.sum(one) for one in correct])), len(correct[0]))


def paired_test(first: Bool[numpy.ndarray, " N"], second: Bool[numpy.ndarray, " N"]) -> PairedTest:
    """McNemar's exact test of whether two methods are right equally often on the same examples.

    Source: McNemar 1947; the discordant examples are binomial with p = ½ under the null hypothesis.
    """
    from scipy.stats import binomtest  # a second of import time, which the page's start does not need

    only_first = int(numpy.sum(first & ~second))
    only_second = int(numpy.sum(second & ~first))
    discordant = only_first + only_second
    return PairedTest(only_first, only_second, binomtest(only_first, discordant).pvalue if discordant else 1.0)


def _score(correct: float, count: int) -> Score:
    from scipy.stats import binomtest

    # The Wilson interval is defined for whole counts; a mean of several models is rounded outwards.
    low = binomtest(int(numpy.floor(correct)), count).proportion_ci(method="wilson").low
    high = binomtest(int(numpy.ceil(correct)), count).proportion_ci(method="wilson").high
    return Score("accuracy", correct / count, float(low), float(high), count)
