"""AdamW over stacks of parameters, and the schedules of its learning rates."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mvsa_tune.models.matmul import Slices

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch's defaults


class StackedAdamW:
    """`torch.optim.AdamW(fused=True)` for R replicates, each with its own learning rate; without weight decay, Adam.

    The kernel gets each replicate's slices as separate tensors. Given a whole stack, how it rounds an element would
    depend on the element's position, and so on the other replicates. Replicates of one learning rate go in one call.
    """

    def __init__(self, stacks: Iterable[nn.Parameter], weight_decay: float) -> None:
        """Prepare to optimise `stacks`, `(R, …)` each."""
        self.stacks, self.weight_decay = list(stacks), weight_decay
        # Weights, first and second moments: by stack, then by replicate.
        self.weights = [stack.detach().unbind() for stack in self.stacks]
        self.first, self.second = ([torch.zeros_like(stack).unbind() for stack in self.stacks] for _ in range(2))
        for stack, weights in zip(self.stacks, self.weights, strict=True):
            # `matmul.Hidden` makes gradients slice by slice, and leaves them there.
            stack.slices = Slices(weights, [])  # type: ignore[attr-defined]
        self.steps = torch.zeros(len(self.weights[0]), dtype=torch.float32, device=self.stacks[0].device)
        self.steps_by_replicate = self.steps.unbind()

    @torch.no_grad()
    def step(self, rates: Sequence[float | None]) -> None:
        """Update the weights with each replicate's learning rate, None for no step; clear the gradients."""
        taken = [float(rate is not None) for rate in rates]
        self.steps.add_(1 if all(taken) else torch.tensor(taken, device=self.steps.device))
        gradients = [_take_gradients(stack) for stack in self.stacks]
        for rate in dict.fromkeys(rates):
            if rate is None:
                continue
            members = [r for r, other in enumerate(rates) if other == rate]
            torch._fused_adamw_(
                [of_stack[r] for of_stack in self.weights for r in members],
                [of_stack[r] for of_stack in gradients for r in members],
                [of_stack[r] for of_stack in self.first for r in members],
                [of_stack[r] for of_stack in self.second for r in members],
                [],
                [self.steps_by_replicate[r] for r in members] * len(self.stacks),
                lr=rate,
                beta1=BETA1,
                beta2=BETA2,
                weight_decay=self.weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )


def _take_gradients(stack: nn.Parameter) -> Sequence[Tensor]:
    """Return each replicate's gradient and clear it in the stack."""
    whole, stack.grad = stack.grad, None
    if whole is not None:
        return whole.unbind()
    gradients: list[Tensor] = stack.slices.gradients  # type: ignore[attr-defined]
    taken = gradients.copy()
    gradients.clear()
    return taken


def lr_factor(schedule: str, warmup: float, step: int, steps: int) -> float:
    """Return the factor of the learning rate in step `step` (from 0) of `steps`.

    It rises linearly from 0 to 1 over the first `warmup` × `steps`. Then it falls to 0, for `linear` linearly, for
    `cosine` as half a cosine wave (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts). For `constant` and
    `plateau` it stays: the latter changes the learning rate itself.
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


def plateau(lr: float) -> ReduceLROnPlateau:
    """Return a learning rate that falls to a tenth after six epochs without a better loss, as in Cheema et al. 2021."""
    return ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], lr=lr), factor=0.1, patience=5)
