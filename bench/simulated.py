"""Replicates of known truth: answers, right or wrong, of configurations on samples, from a probit model.

An answer is right where `ability + difficulty of the sample + effect of the seed + noise` is above 0; difficulty and noise have
variance 1 together, of which difficulty has `SHARED`, so that most samples are right, or wrong, in every replicate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

SHARED = 0.85  # of the variance within a replicate: the sample's difficulty, the same for every replicate
ALIKE = 0.9  # of a difficulty's variance: the same for every configuration
SEED_STD = 0.008  # of a replicate's true accuracy


@dataclass(frozen=True)
class Case:
    """Answers of K configurations, and their truth.

    Attributes:
        right: `(K, R, N)`.
        truth: `(K,)` accuracy expected of another seed on other samples.
        replicates: `(K, R)` accuracy of each replicate on other samples.
    """

    right: NDArray[np.bool_]
    truth: NDArray[np.float64]
    replicates: NDArray[np.float64]


def case(
    rng: np.random.Generator, accuracies: NDArray[np.float64], replicates: int, samples: int, seed_std: float = SEED_STD
) -> Case:
    """Configurations of true `accuracies` (K,), each with seeds of its own, on the same samples."""
    count = len(accuracies)
    seed = seed_std / norm.pdf(norm.ppf(accuracies))  # on the scale of the ability
    ability = norm.ppf(accuracies) * np.sqrt(1 + seed**2)
    difficulty = np.sqrt(ALIKE) * rng.standard_normal(samples) + np.sqrt(1 - ALIKE) * rng.standard_normal(
        (count, samples)
    )
    able = ability[:, None] + seed[:, None] * rng.standard_normal((count, replicates))
    noise = rng.standard_normal((count, replicates, samples), dtype=np.float32)
    right = able[:, :, None] + np.sqrt(SHARED) * difficulty[:, None] + np.sqrt(1 - SHARED) * noise > 0
    return Case(right, np.asarray(accuracies, dtype=float), norm.cdf(able))
