"""Learning rates against those of transformers and torch; AdamW over stacks against torch's own."""

import itertools

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from transformers import optimization

from mvsa_tune.config import SCHEDULES
from mvsa_tune.training.optimizer import StackedAdamW, lr_factor


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_a_steps_factor_is_that_of_transformers(schedule: str, warmup: float) -> None:
    plain = optimizer()
    reference = optimization.get_scheduler(
        schedule if schedule != "constant" else "constant_with_warmup", plain, int(40 * warmup), 40
    )
    for step in range(40):
        assert lr_factor(schedule, warmup, step, 40) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        plain.step()
        reference.step()


def test_the_cosine_is_torchs() -> None:
    plain = optimizer()
    reference = CosineAnnealingLR(plain, T_max=30)
    for step in range(30):
        assert lr_factor("cosine", 0.0, step, 30) == pytest.approx(plain.param_groups[0]["lr"], abs=1e-12)
        plain.step()
        reference.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_starts_at_nothing_rises_to_all_and_never_leaves_that_span(schedule: str) -> None:
    factors = [lr_factor(schedule, 0.1, step, 200) for step in range(200)]
    assert factors[0] == 0 and factors[20] == 1 and all(0 <= factor <= 1 for factor in factors)
    assert all(a < b for a, b in itertools.pairwise(factors[:21]))


def test_adamw_over_stacks_is_torchs_with_a_rate_for_each_replicate() -> None:
    stack, rates = nn.Parameter(torch.randn(3, 5, 7)), [1e-2, 1e-3, 1e-2]
    singles = [nn.Parameter(weights.detach().clone()) for weights in stack]
    stacked = StackedAdamW([stack], weight_decay=0.1)
    optimizers = [
        torch.optim.AdamW([single], lr=rate, weight_decay=0.1) for single, rate in zip(singles, rates, strict=True)
    ]
    for step in range(4):
        gradient = torch.randn(3, 5, 7)
        stack.grad = gradient.clone()
        skipped = 1 if step == 2 else None  # a replicate whose epoch is over
        stacked.step([None if r == skipped else rate for r, rate in enumerate(rates)])
        assert stack.grad is None
        for r, (single, optimizer) in enumerate(zip(singles, optimizers, strict=True)):
            if r != skipped:
                single.grad = gradient[r]
                optimizer.step()
            torch.testing.assert_close(stack[r], single)
