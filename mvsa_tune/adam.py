"""AdamW over stacks of parameters, each replicate's slices stepped as if they were alone."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch's defaults


class StackedAdamW:
    """`torch.optim.AdamW(fused=True)` for R replicates, each with a learning rate of its own; without weight decay, Adam.

    The kernel gets each replicate's slices as tensors of their own, so that its rounding, too, is what the replicate gets alone:
    over a whole stack an element's place in the tensor decides how it rounds. Replicates of one learning rate go in one call.
    """

    def __init__(self, stacks: Iterable[nn.Parameter], weight_decay: float) -> None:
        """Begin with no step taken; `stacks` are `(R, …)` each."""
        self.stacks = list(stacks)
        self.weight_decay = weight_decay
        moments = [[torch.zeros_like(stack) for stack in self.stacks] for _ in range(2)]
        for stack in self.stacks:
            # What takes the slices themselves (`StackedLinear.weights`) leaves gradients there, not put together.
            stack.own = [one.requires_grad_() for one in stack.detach().unbind()]  # type: ignore[attr-defined]
        self.slices = list(zip(*(stack.own for stack in self.stacks), strict=True))  # type: ignore[attr-defined]
        self.first, self.second = map(_by_replicate, moments)
        device = self.stacks[0].device
        self.steps = [torch.zeros((), dtype=torch.float32, device=device) for _ in self.slices]

    @torch.no_grad()
    def step(self, rates: Sequence[float | None]) -> None:
        """Step along the gradients, and forget them.

        Args:
            rates: by replicate its learning rate; None for one that takes no step.
        """
        gradients = list(zip(*map(_gradients, self.stacks), strict=True))
        for rate in dict.fromkeys(rates):
            if rate is None:
                continue
            members = [r for r, own in enumerate(rates) if own == rate]
            torch._foreach_add_([self.steps[r] for r in members], 1)
            torch._fused_adamw_(
                [own for r in members for own in self.slices[r]],
                [own for r in members for own in gradients[r]],
                [own for r in members for own in self.first[r]],
                [own for r in members for own in self.second[r]],
                [],
                [self.steps[r] for r in members for _ in self.stacks],
                lr=rate,
                beta1=BETA1,
                beta2=BETA2,
                weight_decay=self.weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )


def _by_replicate(stacks: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """A slice of each stack for each replicate."""
    return list(zip(*(stack.detach().unbind() for stack in stacks), strict=True))


def _gradients(stack: nn.Parameter) -> list[Tensor]:
    """Each replicate's gradient, taken away from where it was left."""
    whole, stack.grad = stack.grad, None
    if whole is not None:
        return list(whole.unbind())
    found = [one.grad for one in stack.own]  # type: ignore[attr-defined]
    for one in stack.own:  # type: ignore[attr-defined]
        one.grad = None
    return found
