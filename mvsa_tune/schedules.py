"""Learning rates over a training."""

import math


def factor(schedule: str, warmup: float, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step: it rises linearly, then follows the schedule.

    Args:
        schedule: `constant`, `linear` or `cosine`, the latter two falling to 0 at the end (Loshchilov & Hutter 2017, arXiv:1608.03983).
        warmup: share of the steps in which it rises.
        step: from 0.
        steps: of the whole training.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]
