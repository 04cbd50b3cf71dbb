"""How many seeds a command asks for: so many, or `FIRST..LAST`, more where they decide."""

from argparse import ArgumentTypeError
from typing import NamedTuple


class SeedCounts(NamedTuple):
    """Every configuration gets `first` seeds; those between which seeds decide get more, up to `last`."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}..{self.last}"

    @staticmethod
    def parse(text: str) -> "SeedCounts":
        """Return the counts that `N` or `FIRST..LAST` stands for; ArgumentTypeError says what is wrong."""
        first, dots, last = text.partition("..")
        try:
            counts = SeedCounts(int(first), int(last if dots else first))
        except ValueError:
            raise ArgumentTypeError(f"{text}: write N, or FIRST..LAST as in 3..20") from None
        if dots and not 2 <= counts.first < counts.last:
            raise ArgumentTypeError(f"{text}: the first number must be 2 at least, and below the second")
        return counts
