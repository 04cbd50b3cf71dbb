"""The dimensions of a search space: the values that a searcher may give a field."""

from dataclasses import dataclass
from typing import Any

from mvsa_tune.errors import InputError
from mvsa_tune.formats import short


@dataclass(frozen=True)
class Choice:
    """A dimension that is one of a few values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return " ".join(map(short, self.values))

    def nearest(self, value: Any) -> Any:
        """Return the value itself: a configuration of this dimension has one of its values."""
        return value

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values: any of them may be the slowest, or break a check."""
        return self.values


@dataclass(frozen=True)
class Range:
    """A dimension that is a number from `low` to `high`, both included; whole numbers where both are.

    With `log` the logarithm is uniform: as likely between 1e-5 and 1e-4 as between 1e-4 and 1e-3.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise InputError(f"{self}: write LOW..HIGH, low below high" + (" and above 0" if self.log else ""))

    def __str__(self) -> str:
        return f"{short(self.low)}..{short(self.high)}"

    def nearest(self, value: float) -> float:
        """Return the value, or the end of the range that rounding took it past."""
        return min(max(value, self.low), self.high)

    @property
    def ends(self) -> tuple[float, float]:
        """Low and high."""
        return self.low, self.high


Dimension = Choice | Range
