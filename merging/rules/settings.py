"""The numbers that rules take beside weights and Fishers."""

import math
from dataclasses import asdict, dataclass, fields

from merging.errors import RecipeError, shown

LARGEST_SEED = 2**31  # what every generator of random numbers takes
# Of a factor's trace: what the damping adds at the least. A factor of fewer examples than its width has no inverse without
# one; summed in float32, its least eigenvalue may be 1e-8 of its trace below 0.
LEAST_DAMPING = 3e-7


@dataclass(frozen=True)
class RuleSettings:
    """Settings of rules; each has its effect where the rule, or `scale`, says so.

    `scale` s moves any merge along the line from the base, θ₀ + s(θ* − θ₀). `damping` is added to the diagonals of both
    Kronecker factors, as a share of their mean eigenvalue (at least 3e-7 of their sum); `shrinkage` multiplies the off-diagonals of
    the input factor (1 keeps them). `density` is the share of a task vector that `ties` and `dare` keep; `seed`
    decides what `dare` drops. `prior` is H₀ of `ugm`, as a multiple of the mean Fisher of a tensor.
    """

    scale: float = 1.0
    damping: float = 0.1
    shrinkage: float = 0.5
    density: float = 0.5
    prior: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in LIMITS:
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or not low <= value <= high or (name == "density" and value == 0):
                above = "above 0" if name == "density" else f"of at least {low:g}"
                raise RecipeError(
                    f"The {name} cannot be used: expected a number {above} and at most {high:g}, got {shown(value)}. "
                    f"Try {getattr(DEFAULTS, name):g}."
                )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed <= LARGEST_SEED:
            raise RecipeError(
                f"The seed of the rule cannot be used: expected a whole number from 0 to {LARGEST_SEED}, "
                f"got {shown(self.seed)}."
            )

    def changed(self) -> dict[str, float]:
        """The settings that are not the defaults."""
        return {name: value for name, value in asdict(self).items() if value != getattr(DEFAULTS, name)}


LIMITS = (
    ("scale", 0.0, 10.0),
    ("damping", 0.0, 1e6),
    ("shrinkage", 0.0, 1.0),
    ("density", 0.0, 1.0),
    ("prior", 0.0, 1e12),
)
DEFAULTS = RuleSettings()
NAMES = tuple(item.name for item in fields(RuleSettings))
