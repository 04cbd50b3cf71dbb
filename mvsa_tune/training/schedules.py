"""Learning rates over a training: what a step's is multiplied by, and how it falls where the validation loss stalls."""

import math

# Cheema et al. 2021; the threshold and the least change are torch's defaults.
PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.1, 5
PLATEAU_THRESHOLD, LEAST_CHANGE = 1e-4, 1e-8


def factor(schedule: str, warmup: float, step: int, steps: int) -> float:
    """What the learning rate of step `step` (from 0) of `steps` is multiplied by.

    It rises in a line from 0 over the first `warmup` × `steps`; then it stays (`constant`, and `plateau`, which falls by
    `Plateau` alone), or falls to 0 at the end: in a line (`linear`), or as half a cosine wave (Loshchilov and Hutter 2017,
    arXiv:1608.03983, without restarts).
    """
    rising = warmup * steps
    if step < rising:
        return step / rising
    done = (step - rising) / (steps - rising)
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1.0


class Plateau:
    """One replicate's learning rate, a tenth of what it was after six epochs without a better validation loss.

    Step for step `torch.optim.lr_scheduler.ReduceLROnPlateau` (factor 0.1, patience 5): better is less by a ten thousandth, and
    a change of 1e-8 or less is not made.
    """

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.best = math.inf
        self.stalled = 0

    def observe(self, loss: float) -> None:
        """Note the validation loss of an epoch, and lower `lr` if it is time."""
        if loss < self.best * (1 - PLATEAU_THRESHOLD):
            self.best, self.stalled = loss, 0
        else:
            self.stalled += 1
        if self.stalled > PLATEAU_PATIENCE:
            lower = self.lr * PLATEAU_FACTOR
            self.lr = lower if self.lr - lower > LEAST_CHANGE else self.lr
            self.stalled = 0
