import itertools

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from transformers import optimization

from mvsa_tune.config import SCHEDULES
from mvsa_tune.training.schedules import Plateau, factor


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_a_steps_factor_is_that_of_transformers(schedule: str, warmup: float) -> None:
    plain = optimizer()
    theirs = optimization.get_scheduler(
        schedule if schedule != "constant" else "constant_with_warmup", plain, int(40 * warmup), 40
    )
    for step in range(40):
        assert factor(schedule, warmup, step, 40) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        plain.step()
        theirs.step()


def test_the_cosine_is_torchs() -> None:
    plain = optimizer()
    theirs = CosineAnnealingLR(plain, T_max=30)
    for step in range(30):
        assert factor("cosine", 0.0, step, 30) == pytest.approx(plain.param_groups[0]["lr"], abs=1e-12)
        plain.step()
        theirs.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_starts_at_nothing_rises_to_all_and_never_leaves_that_span(schedule: str) -> None:
    factors = [factor(schedule, 0.1, step, 200) for step in range(200)]
    assert factors[0] == 0 and factors[20] == 1 and all(0 <= one <= 1 for one in factors)
    assert all(a < b for a, b in itertools.pairwise(factors[:21]))


@pytest.mark.parametrize("lr", [1e-3, 2e-5])
@pytest.mark.parametrize("seed", range(4))
def test_a_plateau_is_torchs_epoch_for_epoch(lr: float, seed: int) -> None:
    plain = optimizer(lr)
    theirs, ours = ReduceLROnPlateau(plain, factor=0.1, patience=5), Plateau(lr)
    rng = np.random.default_rng(seed)
    # falls, then stalls within and beyond the threshold, then falls again, with losses that are not numbers between
    losses = np.concatenate([np.linspace(1, 0.5, 10), 0.5 - rng.uniform(-1e-4, 1e-4, 50), rng.uniform(0.3, 0.6, 60)])
    losses[rng.integers(0, 120, 3)] = np.nan
    seen = set()
    for loss in losses:
        theirs.step(loss)
        ours.observe(float(loss))
        seen.add(ours.lr)
        assert ours.lr == plain.param_groups[0]["lr"]
    assert len(seen) > 3
