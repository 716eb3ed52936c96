"""Where to look next: a tree-structured Parzen estimator on the simplex of weights."""

import math
import warnings

from merging.search.points import Weights, rounded

# Below this a weight is as good as 0; −log of it is the largest share before normalisation.
LEAST = 1e-6


class Proposals:
    """Weights to try, from what the weights tried so far gave. The same history and seed propose the same.

    Each model has u ∈ (0, 1], and its weight is in proportion to −log u: where u is uniform, the weights are uniform
    on the simplex (Dirichlet(1, …, 1)).
    Source: Optuna's TPE; Bergstra et al. 2011.
    """

    def __init__(self, count: int, *, seed: int) -> None:
        import optuna  # a quarter of a second, which the page's start does not need

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._names = [f"u{index}" for index in range(count)]
        self._space = dict.fromkeys(self._names, optuna.distributions.FloatDistribution(LEAST, 1.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, multivariate=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._made, self._discarded = optuna.trial.create_trial, optuna.trial.TrialState.FAIL

    def tell(self, weights: Weights, value: float) -> None:
        """What a weighting gave."""
        shares = dict(zip(self._names, (max(LEAST, math.exp(-len(weights) * own)) for own in weights), strict=True))
        self._study.add_trial(self._made(params=shares, distributions=self._space, value=value))

    def next(self) -> Weights:
        """A weighting to try; a history without values gives a uniform draw."""
        asked = self._study.ask(self._space)
        shares = [-math.log(asked.params[name]) for name in self._names]
        # What it gives is told with the rounded weights, as a trial of its own.
        self._study.tell(asked, state=self._discarded)
        return rounded(shares if sum(shares) > 0 else [1.0] * len(shares))
