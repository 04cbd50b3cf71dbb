"""How many seeds each configuration should get: more where they decide which one is the best.

The accuracy that a configuration would have over endless seeds is taken as normal about its mean, with the variance of
its seeds, moderated over all configurations (`variances.py`). Then taking the leader loses, on average, what another
one that is truly best would have had more: the *expected regret*. This is selection by expected opportunity cost
(Branke, Chick & Schmidt 2007, doi 10.1287/mnsc.1070.0721), in rounds: as long as the expected regret is larger than the
standard error that the leader would have with all its seeds, the leader and the configurations that the regret comes
from get half as many seeds again. All are scored on the same validation samples: no seeds make up for too few of those.

The rounds follow from the recorded accuracies alone, so that a sweep that was killed goes on as it would have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.stats.intervals import Array
from mvsa_tune.stats.variances import moderate

DRAWS = 4_000
LEFT = 0.5  # of the goal: what the regret of the configurations that get no further seeds may be together


@dataclass(frozen=True)
class Allocation:
    """How many seeds each of K configurations should have.

    Attributes:
        seeds: `(K,)`.
        regret: the expected regret before the seeds that are missing.
        goal: the expected regret at which no more seeds are given.
    """

    seeds: NDArray[np.intp]
    regret: float
    goal: float


def allocate(accuracies: Sequence[Array], first: int, last: int) -> Allocation:
    """Return how many seeds each configuration should have, as far as its recorded accuracies tell.

    Args:
        accuracies: `(R,)` of each configuration, by seed, in the order in which seeds are trained; R is `first` at
            least.
        first: the seeds that all have, two at least.
        last: the seeds that none has more of.
    """
    seeds = np.full(len(accuracies), first)
    while True:
        loss, goal = expected_losses([of[:count] for of, count in zip(accuracies, seeds, strict=True)], last)
        regret = float(loss.sum())
        order = np.argsort(-loss, kind="stable")
        left = regret - np.cumsum(loss[order])
        leader = np.argmax([of[:count].mean() for of, count in zip(accuracies, seeds, strict=True)])
        chosen = np.union1d(order[: int(np.argmax(left <= LEFT * goal)) + 1], leader)
        chosen = chosen[seeds[chosen] < last]
        if regret <= goal or not chosen.size:
            return Allocation(seeds, regret, goal)
        seeds[chosen] = np.minimum(last, seeds[chosen] + np.maximum(1, seeds[chosen] // 2))
        if any(len(of) < count for of, count in zip(accuracies, seeds, strict=True)):
            return Allocation(seeds, regret, goal)


def expected_losses(accuracies: Sequence[Array], last: int) -> tuple[Array, float]:
    """Return what each configuration adds to the expected regret, `(K,)`, and the goal for their sum.

    A configuration adds what the leader is behind it where it is the best, averaged over draws of the true accuracies.
    """
    counts = np.array([float(len(of)) for of in accuracies])
    means = np.array([of.mean() for of in accuracies])
    variance, _ = moderate(np.array([of.var(ddof=1) for of in accuracies]), counts - 1)
    normal = np.random.default_rng(0).standard_normal((len(means), DRAWS))
    truth = means[:, None] + np.sqrt(variance / counts)[:, None] * normal
    leader = means.argmax()
    loss = np.bincount(truth.argmax(axis=0), truth.max(axis=0) - truth[leader], minlength=len(means)) / DRAWS
    return loss, float(np.sqrt(variance[leader] / last))
