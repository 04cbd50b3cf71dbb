"""Error rates, power and coverage of the comparisons with the best, on simulated sweeps of known truth.

    python bench/power.py                  # the cases of bench/README.md: an hour and a half on one core
    python bench/power.py --cases 200      # in ten minutes, three times as uncertain

It prints three tables. *False*: how often a configuration that is truly best is left out of the set of those that may
be (at most 0.055). *Found*: the share of configurations below the best that are left out, beside Bonferroni's t against
the best with variances known. *Covered*: how often all intervals of the distances from the best hold the truth.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mvsa_tune.formats import markdown
from mvsa_tune.stats.best import behind_best
from mvsa_tune.stats.differences import ALPHA, errors
from simulated import TRUTH, case

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
    "0.4": alike(0.004), "0.8": alike(0.008), "2": alike(0.02), "0.4 to 2": spread, "0.4 or 2": halves,
    "0.8, one 5": one_wild, "0": alike(0.0),
}  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """K configurations of R seeds on N samples, `best` of them the best, the others `gap` behind."""

    K: int
    R: int
    N: int
    deviations: str  # a key of `SEEDS`
    best: int
    gap: float = 0.0

    @property
    def truth(self) -> NDArray[np.float64]:
        """The true accuracies, the best first."""
        return np.where(np.arange(self.K) < self.best, TRUTH, TRUTH - self.gap)

    def simulate(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return correctness, `(K, R, N)`."""
        return case(rng, self.truth, self.R, self.N, SEEDS[self.deviations](rng, self.K)).correct.astype(float)

    def known(self, rng: np.random.Generator) -> float:
        """Return the share found by Bonferroni's t against the best with known variances, about."""
        draws = [self.simulate(rng).mean(axis=(1, 2)) for _ in range(KNOWN // 4 if self.K > 24 else KNOWN)]
        gaps = np.array([means[: self.best].max() - means[self.best :] for means in draws])
        deviation = np.std([means[0] - means[self.best :] for means in draws], axis=0)
        return float((gaps / deviation > stats.norm.isf(ALPHA / 2 / (self.K - 1))).mean())

    def measure(self, cases: int) -> tuple[float, float, float]:
        """Return the rates of false exclusions, of configurations found, and of sweeps whose intervals all hold."""
        rng, false, found, held = np.random.default_rng(0), [], [], []
        for _ in range(cases):
            values = self.simulate(rng)
            order = np.argsort(-values.mean(axis=(1, 2)), kind="stable")
            differences, truth = behind_best(errors(list(values[order]))), self.truth[order]
            out = np.array([difference.adjusted < ALPHA for difference in differences])
            false.append(out[order < self.best].any())
            found += out[order >= self.best].tolist()
            held.append(all(d.low <= truth[0] - t <= d.high for d, t in zip(differences, truth, strict=True)))
        return float(np.mean(false)), float(np.mean(found)) if found else float("nan"), float(np.mean(held))


NULL = [
    *(Sweep(8, R, N, of, 8) for R in (3, 5, 10) for N in (400, 4000) for of in ("0.4", "0.8", "2", "0.4 or 2")),
    *(Sweep(8, R, 400, of, 8) for R in (3, 5) for of in ("0.4 to 2", "0.8, one 5")),
    *(Sweep(K, R, 400, of, K) for K in (2, 24) for R in (3, 5) for of in ("0.8", "2", "0.4 or 2")),
    Sweep(100, 3, 400, "0.8", 100),
    *(Sweep(K, 1, 400, "0", K) for K in (2, 8, 24)),
    *(Sweep(24, R, 400, "0.8", best, gap) for R in (3, 5) for best in (2, 12) for gap in (0.02, 0.05)),
]
TRUE = [
    *(Sweep(K, R, 400, "0.8", 1, 0.05) for K in (2, 8, 24, 100) for R in (3, 5, 10)),
    *(Sweep(8, R, 400, "0.8, one 5", 1, 0.1) for R in (3, 5)),
    *(Sweep(8, R, 4000, "0.8", 1, 0.02) for R in (3, 5)),
]


def table(sweeps: list[Sweep], cases: int, *, with_known: bool) -> str:
    """Measure sweeps and return a table."""
    header = ["K", "R", "N", "seeds' deviation", "best", "gap", "cases", "false", "covered"]
    header += ["found", "variances known", "ratio"] if with_known else []
    body = []
    for sweep in sweeps:
        count = cases // 4 if sweep.K * sweep.R * sweep.N > 60_000 else cases
        false, found, held = sweep.measure(count)
        row = [str(sweep.K), str(sweep.R), f"{sweep.N:,}", sweep.deviations, str(sweep.best), f"{100 * sweep.gap:g}"]
        row += [f"{count:,}", f"{false:.3f}", f"{held:.3f}"]
        if with_known:
            known = sweep.known(np.random.default_rng(1))
            row += [f"{found:.2f}", f"{known:.2f}", f"{found / known:.2f}"]
        body.append(row)
        print("  ".join(row), flush=True)
    return markdown(header, body)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    options = parser.parse_args()
    print(table(TRUE, options.cases, with_known=True))
    print(table(NULL, options.cases, with_known=False))


if __name__ == "__main__":
    main()
