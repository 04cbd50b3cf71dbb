"""The epoch: the best one's number, the last one's, and one that is free of choosing the epoch on the data that it is scored on.

The reference experiment report the best validation accuracy over the epochs: a maximum over noisy numbers, chosen on the samples that it is scored on.

**Cross-fitted.** The validation samples are shared out to `parts`; each part is scored at the epoch that is best on all the others
(Stone 1974, doi 10.1111/j.2517-6161.1974.tb00994.x; for choosing among candidates, Varma & Simon 2006, doi 10.1186/1471-2105-7-91). No sample
has a say in the epoch that it is scored at. It needs every epoch's answers.

**By the other replicates.** Where only the curves were kept: each replicate is scored at the epoch that is best on the mean of the others'
curves. Free of its own seed's luck, not of the samples': all replicates share them, and what makes an epoch lucky on them in all stays in.
"""

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.errors import InputError

PARTS = 2  # the least error of 2, 5 and 10 (`bench/choosing.py`)
ROUNDS = 20  # the parts are dealt anew each round; more rounds take out the chance of the dealing


def cross_fitted(right: NDArray[np.bool_], parts: int = PARTS, rounds: int = ROUNDS) -> NDArray[np.float64]:
    """`(R, N)`: how often each sample is answered rightly at the epoch that is best without it; for `intervals` and `differences`.

    Args:
        right: `(E, R, N)`, true where replicate r is right about sample n after epoch e.
        parts: of the samples.
        rounds: of dealing them out; the same deals every time.

    Raises:
        InputError: There are fewer samples than parts.
    """
    _, replicates, samples = right.shape
    if samples < parts:
        raise InputError(f"{samples} validation samples cannot be shared out to {parts} parts")
    rng = np.random.default_rng(0)
    total = right.sum(axis=2)
    scored = np.zeros((replicates, samples))
    each = np.arange(replicates)[:, None]
    for _ in range(rounds):
        for part in np.array_split(rng.permutation(samples), parts):
            here = right[:, :, part]
            chosen = (total - here.sum(axis=2)).argmax(axis=0)  # of equals the first, as for the best epoch
            scored[:, part] += here[chosen[:, None], each, np.arange(len(part))]
    return scored / rounds


def by_the_others(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(R,)` each replicate's accuracy at the epoch that is best for the mean of the others; NaN for one replicate.

    `accuracy` is `(E, R)`.
    """
    if accuracy.shape[1] < 2:
        return np.full(accuracy.shape[1], np.nan)
    others = accuracy.sum(axis=1, keepdims=True) - accuracy
    return np.take_along_axis(accuracy, others.argmax(axis=0)[None], axis=0)[0]
