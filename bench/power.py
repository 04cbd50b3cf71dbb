"""Error rates, power and coverage of the comparisons with the best, on simulated sweeps of known truth.

    python bench/power.py                  # the cases of bench/README.md: an hour and a half on one core
    python bench/power.py --cases 200      # in six minutes, three times as uncertain

It prints four tables. *False*: how often a configuration that is truly best is left out of the set of those that may
be (at most 0.055). *Found*: the share of configurations below the best that are left out, beside Bonferroni's t against
the best with variances known. *Covered*: how often all intervals of the distances from the best hold the truth. In the
third table two thirds of the configurations were stopped early: the best, and what is found, are of those that finish.
In the fourth seeds are added where they decide (`--seeds FIRST..LAST`); *seeds* is how many each has, on average.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mvsa_tune.formats import markdown
from mvsa_tune.stats.allocation import allocate
from mvsa_tune.stats.best import behind_best
from mvsa_tune.stats.differences import ALPHA, errors
from simulated import TRUTH, case, finishers

Deviations = Callable[[np.random.Generator, int], NDArray[np.float64]]
KNOWN = 400  # simulated sweeps that give the known variance of a difference


def alike(deviation: float) -> Deviations:
    """Return the same deviation over seeds for all configurations."""
    return lambda rng, count: np.full(count, deviation)


def halves(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return 0.4 points for half of the configurations and 2 for the others."""
    return np.where(rng.permutation(count) < count / 2, 0.004, 0.02)


def spread(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return deviations from 0.4 to 2 points, evenly on a logarithmic scale."""
    return rng.permutation(np.geomspace(0.004, 0.02, count))


def one_wild(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return 0.8 points, and 5 for one configuration."""
    return np.where(rng.permutation(count) == 0, 0.05, 0.008)


SEEDS: dict[str, Deviations] = {
    "0.4": alike(0.004), "0.8": alike(0.008), "2": alike(0.02), "0.4 or 2": halves,
    "0.8, one 5": one_wild, "0.4 to 2": spread, "0": alike(0.0),
}  # fmt: skip
ALL = ("0.4", "0.8", "2", "0.4 or 2", "0.8, one 5")


@dataclass(frozen=True)
class Sweep:
    """K configurations of R seeds on N samples, `best` of them the best, the others `gap` behind."""

    K: int
    R: int
    N: int
    deviations: str  # a key of `SEEDS`
    best: int
    gap: float = 0.0
    stopping: bool = False  # whether only the best third, at a rung, finishes
    first: int = 0  # with how many seeds each begins; 0 for all R at once

    @property
    def truth(self) -> NDArray[np.float64]:
        """The true accuracies, the best first."""
        return np.where(np.arange(self.K) < self.best, TRUTH, TRUTH - self.gap)

    def simulate(self, rng: np.random.Generator) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """Return correctness, `(R, N)` of each, and true accuracies of the configurations that finish."""
        made = (finishers if self.stopping else case)(
            rng, self.truth, self.R, self.N, SEEDS[self.deviations](rng, self.K)
        )
        seeds = np.full(len(made.truth), self.R)
        if self.first:
            seeds = allocate(list(made.correct.mean(axis=2)), self.first, self.R)
        return [of[:count].astype(float) for of, count in zip(made.correct, seeds, strict=True)], made.truth

    def known(self, rng: np.random.Generator) -> float:
        """Return the share found by Bonferroni's t against the best with known variances, about."""
        draws = [np.mean(self.simulate(rng)[0], axis=(1, 2)) for _ in range(KNOWN // 4 if self.K > 24 else KNOWN)]
        gaps = np.array([means[: self.best].max() - means[self.best :] for means in draws])
        deviation = np.std([means[0] - means[self.best :] for means in draws], axis=0)
        return float((gaps / deviation > stats.norm.isf(ALPHA / 2 / (self.K - 1))).mean())

    def measure(self, cases: int) -> tuple[float, ...]:
        """Return the rates of false exclusions, of sweeps whose intervals all hold, of configurations found, of stops.

        The last: in how many sweeps no configuration that is truly best has finished. Then the mean number of seeds.
        """
        rng, false, held, found, stopped, seeds = np.random.default_rng(0), [], [], [], [], []
        for _ in range(cases):
            values, truth = self.simulate(rng)
            order = np.argsort([-of.mean() for of in values], kind="stable")
            differences, truth = behind_best(errors([values[k] for k in order])), truth[order]
            out, best = np.array([difference.adjusted < ALPHA for difference in differences]), truth == truth.max()
            false.append(out[best].any())
            found += out[~best].tolist()
            held.append(all(d.low <= truth[0] - t <= d.high for d, t in zip(differences, truth, strict=True)))
            stopped.append(truth.max() < TRUTH)
            seeds.append(np.mean([len(of) for of in values]))
        rates = (false, held, found, stopped, seeds)
        return tuple(float(np.mean(rate)) if rate else float("nan") for rate in rates)


NULL = [
    *(Sweep(K, R, N, of, K) for K in (2, 8) for N in (400, 4000) for R in (3, 5, 10) for of in ALL),
    *(Sweep(24, R, N, of, 24) for N in (400, 4000) for R in (3, 5) for of in ("0.8", "0.4 or 2", "0.8, one 5")),
    *(Sweep(100, R, 400, of, 100) for R in (3, 5) for of in ("0.8", "0.4 or 2")),
    *(Sweep(100, R, 4000, "0.8", 100) for R in (3, 5)),
    *(Sweep(8, R, N, "0.4 to 2", 8) for N in (400, 4000) for R in (3, 5)),
    *(Sweep(24, R, 400, "0.8", best, gap) for R in (3, 5) for best in (2, 12) for gap in (0.02, 0.05)),
    *(Sweep(K, 1, 400, "0", K) for K in (2, 8, 24)),
]
TRUE = [
    *(Sweep(K, R, 400, "0.8", 1, 0.05) for K in (2, 8, 24, 100) for R in (3, 5, 10)),
    *(Sweep(8, R, 400, "0.8, one 5", 1, 0.1) for R in (3, 5)),
    *(Sweep(K, R, 4000, "0.8", 1, 0.02) for K in (8, 24, 100) for R in (3, 5)),
]
STOPPED = [
    *(Sweep(24, R, 400, of, 24, stopping=True) for R in (3, 5) for of in ("0.8", "2", "0.4 or 2")),
    *(Sweep(24, R, 400, "0.8", 1, gap, stopping=True) for R in (3, 5) for gap in (0.02, 0.05)),
    *(Sweep(24, R, 400, "0.8", 12, 0.05, stopping=True) for R in (3, 5)),
    *(Sweep(72, R, 400, "0.8", 1, 0.05, stopping=True) for R in (3, 5)),
]
GROWN = [
    *(Sweep(24, 20, N, of, 24, first=first) for N in (400, 4000) for first in (2, 3) for of in ("0.8", "0.4 or 2")),
    *(Sweep(8, 20, N, of, 8, first=first) for N in (400, 4000) for first in (2, 3) for of in ("0.8", "0.8, one 5")),
    *(Sweep(100, 20, 400, of, 100, first=first) for first in (2, 3) for of in ("0.8", "0.4 or 2")),
    *(
        Sweep(24, 20, 400, "0.8", best, gap, first=first)
        for first in (2, 3)
        for best in (1, 12)
        for gap in (0.02, 0.05)
    ),
]


def row(sweep: Sweep, cases: int) -> list[str]:
    """Measure a sweep and return its row of the table."""
    false, held, found, stopped, seeds = sweep.measure(cases)
    R = f"{sweep.first}..{sweep.R}" if sweep.first else str(sweep.R)
    cells = [str(sweep.K), R, f"{sweep.N:,}", sweep.deviations, str(sweep.best), f"{100 * sweep.gap:g}"]
    cells += [f"{false:.3f}", f"{held:.3f}"]
    if sweep.stopping:
        cells += [f"{found:.2f}", f"{stopped:.3f}"]
    elif sweep.first:
        cells += ["–" if np.isnan(found) else f"{found:.2f}", f"{seeds:.1f}"]
    elif sweep.best == 1:
        known = sweep.known(np.random.default_rng(1))
        cells += [f"{found:.2f}", f"{known:.2f}", f"{found / known:.2f}"]
    return cells


def table(sweeps: list[Sweep], cases: int, jobs: int, columns: Sequence[str]) -> str:
    """Measure sweeps, showing each row as it is there, and return a table."""
    rows = []
    with ProcessPoolExecutor(jobs) as pool:
        for cells in pool.map(row, sweeps, [cases] * len(sweeps)):
            print("  ".join(cells), flush=True)
            rows.append(cells)
    return markdown(["K", "R", "N", "seeds' deviation", "best", "gap", "false", "covered", *columns], rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="simulated sweeps of each row")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--tables", type=int, nargs="+", default=[0, 1, 2, 3], help="of which tables, from 0")
    options = parser.parse_args()
    columns = ["found", "variances known", "ratio"], [], ["found", "stopped"], ["found", "seeds each"]
    tables = list(zip((TRUE, NULL, STOPPED, GROWN), columns, strict=True))
    for sweeps, columns in (tables[number] for number in options.tables):
        print(table(sweeps, options.cases, options.jobs, columns))


if __name__ == "__main__":
    main()
