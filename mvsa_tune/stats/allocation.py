"""How many seeds each configuration should get: more where they decide which one is the best.

Each configuration's accuracy over endless seeds is taken as normal about its mean, with the variance of its seeds,
moderated over all configurations (`variances.py`; as that is cautious, the normal does instead of Student's t). The
*expected regret* is what one gives up on average by taking the leader: what the configuration that is truly best has
more. This is selection by expected opportunity cost (Branke, Chick & Schmidt 2007, doi 10.1287/mnsc.1070.0721), in
rounds. As long as the expected regret is above the goal, the leader and the configurations most likely to overtake it
get half as many seeds again. The goal is the standard error that the leader would have with all its seeds. All are
scored on the same validation samples: no seeds make up for too few of those.

The rounds follow from the recorded accuracies alone, so that a sweep that was killed goes on as it would have.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.stats.intervals import Array
from mvsa_tune.stats.variances import moderate

DRAWS = 4_000
LEFT = 0.5  # of the goal: what the regret of the configurations that get no further seeds may be together


def allocate(accuracies: Sequence[Array], first: int, last: int, limits: Sequence[int] = ()) -> NDArray[np.intp]:
    """Return how many seeds each configuration should have, `(K,)`, as far as its recorded accuracies tell.

    Args:
        accuracies: `(R,)` of each configuration, by seed, in the order in which seeds are trained; R is `first` at
            least, and those beyond what the rounds give do not matter.
        first: the seeds that all have, two at least.
        last: the seeds that none has more of.
        limits: that number by configuration, where it is lower.
    """
    seeds, most = np.full(len(accuracies), first), np.array(limits or [last] * len(accuracies))
    while all(len(of) >= count for of, count in zip(accuracies, seeds, strict=True)):
        used = [of[:count] for of, count in zip(accuracies, seeds, strict=True)]
        loss, goal = expected_losses(used, last)
        order = np.argsort(-loss, kind="stable")
        left = loss.sum() - np.cumsum(loss[order])
        leader = np.argmax([of.mean() for of in used])
        chosen = np.union1d(order[: int(np.argmax(left <= LEFT * goal)) + 1], leader)
        chosen = chosen[seeds[chosen] < most[chosen]]
        if loss.sum() <= goal or not chosen.size:
            break
        seeds[chosen] = np.minimum(most[chosen], seeds[chosen] + np.maximum(1, seeds[chosen] // 2))
    return seeds


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
