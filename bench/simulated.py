"""Replicates of known truth: which samples configurations classify correctly, from a probit model.

A sample is correct where `ability + difficulty of the sample + effect of the seed + noise` is above 0. Difficulty and
noise have variance 1 together, of which difficulty has `SHARED`, so that most samples are correct always or never.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

SHARED = 0.85  # of the variance within a replicate: the sample's difficulty, the same for every replicate
ALIKE = 0.9  # of a difficulty's variance: the same for every configuration
SEED_STD = 0.008  # of a replicate's true accuracy
TRUTH = 0.76  # the true accuracy of a configuration, unless a table names another


@dataclass(frozen=True)
class Case:
    """Correctness of K configurations, and their truth.

    Attributes:
        correct: `(K, R, N)`.
        truth: `(K,)` accuracy expected of another seed on other samples.
        replicates: `(K, R)` accuracy of each replicate on other samples.
    """

    correct: NDArray[np.bool_]
    truth: NDArray[np.float64]
    replicates: NDArray[np.float64]


def case(
    rng: np.random.Generator, accuracies: NDArray[np.float64], replicates: int, samples: int, seed_std: float = SEED_STD
) -> Case:
    """Simulate configurations of true `accuracies` (K,), each with different seeds, on the same samples."""
    margins, abilities = _margins(rng, accuracies, replicates, samples, seed_std)
    return Case(margins > 0, np.asarray(accuracies, dtype=float), norm.cdf(abilities))


def finishers(
    rng: np.random.Generator, accuracies: NDArray[np.float64], replicates: int, samples: int, seed_std: float = SEED_STD
) -> Case:
    """Simulate configurations of which successive halving lets the best third finish, and return those.

    They are scored at the rung on the same samples: with the same seeds' effects, and a further noise as large as that
    of the end; how far each has come by then varies by 1 point (standard deviation).
    """
    margins, abilities = _margins(rng, accuracies, replicates, samples, seed_std)
    progress = 0.01 / norm.pdf(norm.ppf(accuracies)) * rng.standard_normal(len(accuracies))
    noise = rng.standard_normal(margins.shape, dtype=np.float32)
    at_rung = (margins + progress[:, None, None] + np.sqrt(1 - SHARED) * noise > 0).mean(axis=(1, 2))
    finish = np.argsort(-at_rung, kind="stable")[: len(accuracies) // 3]
    return Case(margins[finish] > 0, np.asarray(accuracies, dtype=float)[finish], norm.cdf(abilities[finish]))


def _margins(
    rng: np.random.Generator, accuracies: NDArray[np.float64], replicates: int, samples: int, seed_std: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `(K, R, N)`, above 0 where a sample is correct, and the abilities `(K, R)`."""
    count = len(accuracies)
    seed = seed_std / norm.pdf(norm.ppf(accuracies))  # on the scale of the ability
    ability = norm.ppf(accuracies) * np.sqrt(1 + seed**2)
    difficulty = np.sqrt(ALIKE) * rng.standard_normal(samples) + np.sqrt(1 - ALIKE) * rng.standard_normal(
        (count, samples)
    )
    abilities = ability[:, None] + seed[:, None] * rng.standard_normal((count, replicates))
    noise = rng.standard_normal((count, replicates, samples), dtype=np.float32)
    return abilities[:, :, None] + np.sqrt(SHARED) * difficulty[:, None] + np.sqrt(1 - SHARED) * noise, abilities


def curves(
    rng: np.random.Generator, epochs: int, replicates: int, samples: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return the correctness `(E, R, N)` of one configuration by epoch, and the true accuracy `(E, R)` of each network.

    The truth rises to 0.76 in the first fifth of the epochs and then falls by 0.01. A replicate's truth varies about it
    (standard deviation 0.004), and so does its correctness, of which a third is common to all replicates. Both are
    correlated by 0.9 from an epoch to the next.
    """
    progress = np.linspace(0, 1, epochs)
    accuracy = TRUTH - 0.2 * np.exp(-15 * progress) - 0.01 * progress
    slope = norm.pdf(norm.ppf(TRUTH))
    abilities = norm.ppf(accuracy)[:, None] + SEED_STD / slope * rng.standard_normal(replicates)
    abilities = abilities + 0.004 / slope * _wandering(rng, epochs, (replicates,))
    easy = np.sqrt(SHARED) * rng.standard_normal(samples)
    separate, common = _wandering(rng, epochs, (replicates, samples)), _wandering(rng, epochs, (1, samples))
    noise = np.sqrt(1 - SHARED) * (np.sqrt(2 / 3) * separate + np.sqrt(1 / 3) * common)
    return abilities[:, :, None] + easy + noise > 0, norm.cdf(abilities)


def _wandering(rng: np.random.Generator, epochs: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return standard normal steps `(E, *shape)`, each correlated with the one before by 0.9 (an autoregression)."""
    steps = rng.standard_normal((epochs, *shape))
    for epoch in range(1, epochs):
        steps[epoch] = 0.9 * steps[epoch - 1] + np.sqrt(1 - 0.9**2) * steps[epoch]
    return steps
