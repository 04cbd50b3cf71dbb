"""Differences of configurations: their errors over seeds and samples, 95 % intervals, p, and p corrected.

Configurations are scored on the same samples, each with seeds of its own. The error of a mean has two parts. Over
samples it is the mean over seeds of each sample's effect, which the configurations share in part. Over seeds it is
independent; its variance comes from the seeds' spread, moderated over all configurations (`variances.py`), less the
residual, which the samples' part has already. That the same seed number may help two configurations alike is not used:
it would only make their difference more certain.

A difference is tested by Student's t with Satterthwaite's degrees of freedom (1946). With one seed everywhere there is
no seed variance: two networks are compared by McNemar's exact test (1947), which is about those two alone.

**Draws.** Where each seed draws its own samples, configurations are compared on the seeds that they share; what a draw
adds to all of them is taken out, and the variance of the rest is taken `1 / R + ratio` times (Nadeau & Bengio 2003,
doi 10.1023/A:1024068626366).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from mvsa_tune.errors import InputError
from mvsa_tune.stats.intervals import Array, Crossed
from mvsa_tune.stats.variances import moderate

MCNEMAR = "exact McNemar"
MODERATED_T = "t with moderated seed variances"
REDRAWN_T = "corrected resampled t over draws of the samples"
ALPHA = 0.05
TINY = 1e-15  # what rounding leaves of a variance of 0

Seeds = tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """A difference of accuracies with its 95 % interval."""

    mean: float
    low: float
    high: float
    error: float  # standard error
    p: float  # two-sided, of no difference
    adjusted: float  # p, for the comparisons made together
    test: str  # `MCNEMAR`, `MODERATED_T` or `REDRAWN_T`


@dataclass(frozen=True)
class Errors:
    """The means of K configurations, and what is known of their errors.

    Attributes:
        means: `(K,)` accuracies.
        effects: `(K, N)` effects of the samples; `effects @ effects.T` is the covariance over samples.
        seed_variance: `(K,)` what seeds add to the variance of each mean; 0 where nothing is known of it.
        doubt: `(K,)` how uncertain that is: so much over the root of half its degrees of freedom.
        seeds: `(K,)` how many each mean has.
        residual: `(K,)` variance of a sample's answers from seed to seed.
        answers: `(K, N)` correctness, where all configurations have one seed; else None.
        test: the name of the test.
    """

    means: Array
    effects: Array
    seed_variance: Array
    doubt: Array
    seeds: Array
    residual: Array
    answers: Array | None
    test: str

    def __getitem__(self, chosen: Iterable[int]) -> "Errors":
        """Return those of some configurations."""
        index = list(chosen)
        names = ("means", "effects", "seed_variance", "doubt", "seeds", "residual")
        answers = None if self.answers is None else self.answers[index]
        return replace(self, answers=answers, **{name: getattr(self, name)[index] for name in names})

    def contrasts(self, weights: Array) -> tuple[Array, Array, Array]:
        """Return mean, standard error and degrees of freedom of weighted sums of the means, for `weights` `(…, K)`."""
        squared = weights**2
        over_samples = ((weights @ self.effects) ** 2).sum(axis=-1)
        return (
            weights @ self.means,
            np.sqrt(over_samples + squared @ self.seed_variance),
            self.degrees(over_samples, squared @ self.seed_variance, squared @ self.doubt),
        )

    @cached_property
    def covariance(self) -> Array:
        """The covariance of the means over samples, `(K, K)`."""
        return self.effects @ self.effects.T

    @cached_property
    def pairs(self) -> tuple[Array, Array, Array]:
        """Mean, standard error and degrees of freedom of the first minus the second of every two, `(K, K)` each."""
        alone = np.diag(self.covariance)
        over_samples = np.maximum(0, alone[:, None] + alone - 2 * self.covariance)
        np.fill_diagonal(over_samples, 0)
        seeds, doubt = (part[:, None] + part for part in (self.seed_variance, self.doubt))
        error = np.sqrt(over_samples + seeds)
        return self.means[:, None] - self.means, error, self.degrees(over_samples, seeds, doubt)

    def draws(self, count: int) -> NDArray[np.float32]:
        """Return normal errors of the K means, `(K, count)`, the same every time."""
        values, vectors = np.linalg.eigh(self.covariance + np.diag(self.seed_variance))
        root = (vectors * np.sqrt(np.maximum(0, values))) @ vectors.T
        normal = np.random.default_rng(0).standard_normal((len(self.means), count), dtype=np.float32)
        return root.astype(np.float32) @ normal

    @cached_property
    def p_of_pairs(self) -> Array:
        """The two-sided p of every two, `(K, K)`."""
        if self.answers is not None:
            alone = self.answers @ (1 - self.answers).T  # [i, j]: samples that i classifies correctly and j does not
            return mcnemar(alone, alone.T)
        return student(*self.pairs)

    def test_all(self, weights: Array) -> list[Difference]:
        """Return weighted sums of the means, for `weights` `(Q, K)`, as differences tested together (Holm's method)."""
        results = []
        for contrast in weights:
            mean, error, degrees = (float(part) for part in self.contrasts(contrast))
            p, test = float(student(mean, error, degrees)), self.test
            if self.answers is not None:
                answers = np.round(contrast @ self.answers, 9)
                if np.isin(answers, (-1, 0, 1)).all():
                    p, test = float(mcnemar((answers == 1).sum(), (answers == -1).sum())), MCNEMAR
            half = error * float(stats.t.isf(ALPHA / 2, degrees))
            results.append(Difference(mean, max(-1.0, mean - half), min(1.0, mean + half), error, p, p, test))
        adjusted = holm([result.p for result in results])
        return [replace(result, adjusted=float(p)) for result, p in zip(results, adjusted, strict=True)]

    def degrees(self, over_samples: Array, seeds: Array, doubt: Array) -> Array:
        """Return Satterthwaite's degrees of freedom of variances with these parts."""
        uncertainty = over_samples**2 / max(self.effects.shape[1] - 1, 1) + doubt**2
        with np.errstate(invalid="ignore"):
            return np.where(uncertainty > 0, (over_samples + seeds) ** 2 / np.maximum(uncertainty, 1e-300), np.inf)


def errors(values: Sequence[Array]) -> Errors:
    """Return the errors of configurations scored on the same samples.

    Args:
        values: `(R, N)` for each configuration: a row per seed, a column per sample; R may differ.

    Raises:
        InputError: the samples differ in number, or a value is not finite.
    """
    if len({array.shape[1] for array in values}) != 1 or not all(np.isfinite(array).all() for array in values):
        raise InputError("only configurations scored on the same samples, with finite values, can be compared")
    N = values[0].shape[1]
    means, seeds = np.array([array.mean() for array in values]), np.array([float(len(array)) for array in values])
    effects = np.stack([array.mean(axis=0) for array in values]) - means[:, None]
    effects /= np.sqrt(N * max(N - 1, 1))
    if (seeds == 1).all():
        none = np.zeros(len(values))
        answers = np.round(np.concatenate(values) + 1e-9)  # cross-fitted shares of a single network
        return Errors(means, effects, none, none, seeds, none, answers, MODERATED_T)
    several = seeds > 1
    spread, residual = np.zeros(len(values)), np.zeros(len(values))
    for k in map(int, np.flatnonzero(several)):
        of_replicates, _, residual[k] = Crossed(values[k]).mean_squares
        spread[k] = of_replicates / N
    residual[~several] = residual[several].mean()
    variance, degrees = moderate(spread, seeds - 1)
    return Errors(
        means,
        effects,
        seed_variance=np.maximum(0, variance - residual / N) / seeds,
        doubt=variance / seeds / np.sqrt(degrees),
        seeds=seeds,
        residual=residual,
        answers=None,
        test=MODERATED_T,
    )


def redrawn_errors(values: Array, ratio: float) -> Errors:
    """Return the errors of configurations whose seeds each draw their own samples.

    Args:
        values: `(K, R)` accuracies on the same R draws; K and R are two at least.
        ratio: of validation to training samples.
    """
    K, R = values.shape
    means, degrees = values.mean(axis=1), np.full(K, (R - 1) * (K - 1) / K)
    rest = values - means[:, None] - values.mean(axis=0) + values.mean()
    variance, freedom = moderate((rest**2).sum(axis=1) / degrees, degrees)
    seed_variance = variance * (1 / R + ratio)
    seeds, none = np.full(K, float(R)), np.zeros(K)
    doubt = seed_variance / np.sqrt(freedom)
    return Errors(means, np.zeros((K, 1)), seed_variance, doubt, seeds, none, None, REDRAWN_T)


def on_common_seeds(values: Sequence[Array], seeds: Sequence[Seeds]) -> tuple[Seeds, list[Array]]:
    """Return the seeds that all configurations have, and the values `(R, N)` of each configuration for those."""
    if len(set(seeds)) == 1:
        return seeds[0], list(values)
    common = tuple(seed for seed in seeds[0] if all(seed in others for others in seeds))
    return common, [array[[rows.index(seed) for seed in common]] for array, rows in zip(values, seeds, strict=True)]


def holm(p: Sequence[float] | Array) -> Array:
    """Return p-values corrected for their number by Holm's step-down method (1979).

    That of statsmodels collects garbage in each call: half a second where much is imported.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def mcnemar(first: Array | int, second: Array | int) -> Array:
    """Return the exact p for so many samples that only the first, and only the second, classifies correctly."""
    least, both = np.minimum(first, second), np.asarray(first) + second
    return np.minimum(1.0, 2 * stats.binom.cdf(least, both, 0.5))


def student(means: Array | float, error: Array | float, degrees: Array | float) -> Array:
    """Return the two-sided p of differences; without variance it is 1 for no difference and 0 for any other."""
    means, error = np.abs(means), np.asarray(error)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * special.stdtr(degrees, -means / error)
    return np.where(error**2 > TINY, p, (means <= 1e-9).astype(float))
