"""What an accuracy is worth: a 95 % interval for other seeds and other samples at once.

R replicates are scored on the same N validation samples. Both are taken as drawn by chance, and crossed: an answer is the mean, an effect of
the replicate, one of the sample, and a rest. Their variances come from the mean squares of the two-way layout (Searle, Casella & McCulloch
1992; for classifiers Gallas 2006, doi 10.1016/j.acra.2005.10.007).

**The two-way bootstrap, corrected.** Replicates and samples are drawn with replacement, each for itself (the pigeonhole bootstrap, Owen 2007,
doi 10.1214/07-AOAS122). As it stands that counts the rest up to three times and the replicates (R − 1) / R times, and nothing cures it while
whole answers are drawn (McCullagh 2000). So the effects are first scaled until their squares are the estimated variances (the reflated
bootstrap of Carpenter, Goldstein & Rasbash 2003, doi 10.1111/1467-9876.00415), which makes the variance over resamples the unbiased one. Few
replicates make that estimate itself uncertain: the quantiles are stretched by Student's t over the normal's, with Satterthwaite's degrees
of freedom (1946). `bench/coverage.py` measures how often the intervals hold the truth.

**One replicate** says nothing of other seeds: its interval is for its own accuracy on other samples, and says so, unless a `SeedVariance`
pooled from other configurations is given.

**Folds**: a row must be scored on the same samples as the others. K folds that share out the samples make one row for each seed, its K parts
put together; the row is then one whole cross-validation (whose folds share training samples, which no estimate accounts for: Bengio &
Grandvalet 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mvsa_tune.errors import InputError
from mvsa_tune.stats.summary import wilson

RESAMPLES = 5_000
LEVEL = 0.95
SAMPLES = "other samples"
SEEDS_AND_SAMPLES = "other seeds and other samples"
REDRAWN = "other seeds and other draws of the samples"
POOLED = "other seeds (variance of other configurations) and other samples"

Values = NDArray[np.bool_] | NDArray[np.float64]


@dataclass(frozen=True)
class SeedVariance:
    """The variance of a replicate's true value over seeds, and the degrees of freedom of that estimate."""

    variance: float
    degrees: float


@dataclass(frozen=True)
class Interval:
    """A mean of R replicates with its 95 % interval.

    Attributes:
        n: R.
        mean: over replicates and samples.
        std: of the replicates' means (R − 1); NaN for one replicate.
        low, high: the interval's ends.
        error: standard error of the mean.
        degrees: Satterthwaite's degrees of freedom of `error`.
        holds_for: what the interval is for: `SEEDS_AND_SAMPLES`, `SAMPLES` or `POOLED`.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    error: float
    degrees: float
    holds_for: str


class Crossed:
    """Values of R replicates on the same N samples, taken apart: `mean + replicates (R, 1) + samples (1, N) + rest (R, N)`."""

    def __init__(self, values: Values, seed_variance: SeedVariance | None = None) -> None:
        """`values` is `(R, N)`. `seed_variance` is used where R is 1, and nowhere else."""
        self.values = checked(values)
        self.R, self.N = self.values.shape
        self.mean = float(self.values.mean())
        self.replicates = self.values.mean(axis=1, keepdims=True) - self.mean
        self.samples = self.values.mean(axis=0, keepdims=True) - self.mean
        self.rest = self.values - self.mean - self.replicates - self.samples
        self.pooled = seed_variance if self.R == 1 else None

    @property
    def holds_for(self) -> str:
        """What the variance accounts for."""
        return SEEDS_AND_SAMPLES if self.R > 1 else POOLED if self.pooled else SAMPLES

    @cached_property
    def mean_squares(self) -> tuple[float, float, float]:
        """Of replicates, samples and rest; those of replicates and rest are 0 where R is 1."""
        free = max(self.R - 1, 1)  # of one replicate both sums are 0
        replicates = self.N * float((self.replicates**2).sum()) / free
        samples = self.R * float((self.samples**2).sum()) / (self.N - 1)
        return replicates, samples, float((self.rest**2).sum()) / (free * (self.N - 1))

    @property
    def seed_variance(self) -> float:
        """Unbiased but for what is cut off at 0."""
        replicates, _, rest = self.mean_squares
        return max(0.0, replicates - rest) / self.N

    @cached_property
    def variances(self) -> tuple[float, float, float]:
        """What seeds, samples and the rest add to the variance of the mean."""
        _, samples, rest = self.mean_squares
        seeds = self.pooled.variance if self.pooled else self.seed_variance
        return seeds / self.R, max(0.0, samples - rest) / (self.R * self.N), rest / (self.R * self.N)

    @property
    def variance(self) -> float:
        """Of the mean, over seeds and samples."""
        return sum(self.variances)

    @cached_property
    def degrees(self) -> float:
        """Satterthwaite's, of `variance`."""
        return self.degrees_of(self.mean_squares)

    def degrees_of(self, mean_squares: tuple[float, ...]) -> float:
        """Satterthwaite's of the variance that such mean squares give."""
        replicates, samples, rest = (square / (self.R * self.N) for square in mean_squares)
        of_samples, of_seeds = max(samples, rest), max(0.0, replicates - rest)
        uncertain = of_samples**2 / (self.N - 1)
        if of_seeds:  # else nothing of the replicates' went into the variance
            uncertain += replicates**2 / (self.R - 1) + rest**2 / ((self.R - 1) * (self.N - 1))
        if self.pooled:
            of_seeds = self.pooled.variance
            uncertain += of_seeds**2 / self.pooled.degrees
        return (of_samples + of_seeds) ** 2 / uncertain if uncertain else float(self.N - 1)

    def resampled(self, resamples: int = RESAMPLES) -> NDArray[np.float64]:
        """`(resamples,)` means over drawn replicates and samples, their variance that of `variance`; the same draws every time."""
        seeds, samples, rest = self.variances
        sizes = (self.R**2 * seeds, self.N**2 * samples, self.R**2 * self.N**2 * rest)
        effects = (self.replicates, self.samples, self.rest)
        scaled = sum(_to_size(effect, size) for effect, size in zip(effects, sizes, strict=True))
        whole = np.broadcast_to(scaled, self.values.shape).astype(np.float32)
        rows, columns = (draws(n, resamples, place) for place, n in enumerate((self.R, self.N)))
        means = self.mean + np.einsum("br,br->b", rows, columns @ whole.T) / self.values.size
        return means + np.sqrt(seeds) * normal_draws(resamples) if self.pooled else means

    def interval(self, least: float, most: float, resamples: int = RESAMPLES) -> tuple[float, float]:
        """The 95 % interval of the mean, of values between `least` and `most`."""
        tails = (1 - LEVEL) / 2
        ends = np.quantile(self.resampled(resamples), [tails, 1 - tails]) - self.mean
        low, high = self.mean + ends * stats.t.ppf(tails, self.degrees) / stats.norm.ppf(tails)
        return max(least, float(low)), min(most, float(high))


class Redrawn:
    """Accuracies of R replicates, each with a draw of training and validation samples of its own.

    The draws overlap, so that the replicates' spread tells too little: their variance is taken `1 / R + ratio` times (Nadeau & Bengio 2003,
    doi 10.1023/A:1024068626366), with R − 1 degrees of freedom.
    """

    holds_for = REDRAWN

    def __init__(self, values: Values, ratio: float) -> None:
        """`values` is `(R, 1)`, R two at least; `ratio` is that of validation to training samples."""
        self.values = np.asarray(values, dtype=np.float64)
        self.R, self.N = len(self.values), 1
        if self.R < 2:
            raise InputError("one draw of the samples says nothing of others: give two seeds at least")
        self.mean = float(self.values.mean())
        self.replicates = self.values - self.mean
        self.degrees = self.R - 1.0
        self.variance = float(self.values.var(ddof=1)) * (1 / self.R + ratio)

    def interval(self, least: float, most: float) -> tuple[float, float]:
        """The 95 % interval of the mean, of values between `least` and `most`."""
        half = float(stats.t.ppf((1 + LEVEL) / 2, self.degrees)) * self.variance**0.5
        return max(least, self.mean - half), min(most, self.mean + half)


def accuracy(right: Values, seed_variance: SeedVariance | None = None) -> Interval:
    """The accuracy of a configuration and its interval.

    Args:
        right: `(R, N)`, true where replicate r is right about sample n; shares (`training.result.cross_fitted`) will do.
        seed_variance: of other configurations (`pooled`), for where R is 1.

    Raises:
        InputError: There are fewer than two samples, or a value is not finite.
    """
    crossed = Crossed(right, seed_variance)
    low, high = (
        crossed.interval(0, 1) if crossed.variance else wilson(crossed.mean, crossed.N)
    )  # all right, or all wrong
    return summary(crossed, low, high)


def summary(crossed: Crossed | Redrawn, low: float, high: float) -> Interval:
    """An `Interval` of those ends."""
    std = float(np.std(crossed.replicates, ddof=1)) if crossed.R > 1 else float("nan")
    error = float(np.sqrt(crossed.variance))
    return Interval(crossed.R, crossed.mean, std, low, high, error, crossed.degrees, crossed.holds_for)


def pooled(values: Sequence[Values]) -> SeedVariance | None:
    """The mean seed variance of configurations, each `(R, N)`, by their degrees of freedom; None where none has two replicates."""
    several = [Crossed(one) for one in values if len(one) > 1]
    if not several:
        return None
    weights = np.array([one.R - 1 for one in several])
    squares = np.array(
        [(one.mean_squares[0] - one.mean_squares[2]) / one.N for one in several]
    )  # may be below 0: the mean is unbiased
    return SeedVariance(max(0.0, float(np.average(squares, weights=weights))), float(weights.sum()))


def checked(values: Values) -> NDArray[np.float64]:
    """`(R, N)` as float64; `InputError` where that is not what is given."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise InputError(
            f"an interval needs replicates × samples, two samples at least; given: {' × '.join(map(str, array.shape))}"
        )
    if not np.isfinite(array).all():
        raise InputError(
            f"{int((~np.isfinite(array)).sum()):,} of {array.size:,} values are not finite: every replicate must be scored on every sample"
        )
    return array


@lru_cache(maxsize=4)
def draws(n: int, resamples: int, stream: int) -> NDArray[np.float32]:
    """`(resamples, n)` how often each of n is drawn, of n draws with replacement; the same every time."""
    return np.random.default_rng([stream, n]).multinomial(n, np.full(n, 1 / n), resamples).astype(np.float32)


def normal_draws(resamples: int) -> NDArray[np.float64]:
    """`(resamples,)` standard normal, the same every time."""
    return np.random.default_rng(2).standard_normal(resamples)


def _to_size(effect: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """`effect` scaled until its squares sum to `size`; effects of 0 stay so."""
    squares = float((effect**2).sum())
    return effect * np.sqrt(size / squares) if squares else effect
