"""AdamW over stacks of parameters, each replicate's slices stepped as if they were alone."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mvsa_tune.models.matmul import Slices

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
        # By stack, then by replicate.
        self.slices = [stack.detach().unbind() for stack in self.stacks]
        self.first, self.second = ([torch.zeros_like(stack).unbind() for stack in self.stacks] for _ in range(2))
        for stack, own in zip(self.stacks, self.slices, strict=True):
            # Who makes a gradient slice by slice (`products.Hidden`) leaves it there.
            stack.slices = Slices(own, [])  # type: ignore[attr-defined]
        self.steps = torch.zeros(len(self.slices[0]), dtype=torch.float32, device=self.stacks[0].device)
        self.own_steps = self.steps.unbind()

    @torch.no_grad()
    def step(self, rates: Sequence[float | None]) -> None:
        """Step along the gradients, and forget them.

        Args:
            rates: by replicate its learning rate; None for one that takes no step.
        """
        taken = [float(rate is not None) for rate in rates]
        self.steps.add_(1 if all(taken) else torch.tensor(taken, device=self.steps.device))
        gradients = [_gradients(stack) for stack in self.stacks]
        for rate in dict.fromkeys(rates):
            if rate is None:
                continue
            members = [r for r, own in enumerate(rates) if own == rate]
            torch._fused_adamw_(
                [own[r] for own in self.slices for r in members],
                [own[r] for own in gradients for r in members],
                [own[r] for own in self.first for r in members],
                [own[r] for own in self.second for r in members],
                [],
                [self.own_steps[r] for r in members] * len(self.stacks),
                lr=rate,
                beta1=BETA1,
                beta2=BETA2,
                weight_decay=self.weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )


def _gradients(stack: nn.Parameter) -> Sequence[Tensor]:
    """Each replicate's gradient, taken away from where it was left."""
    whole, stack.grad = stack.grad, None
    if whole is not None:
        return whole.unbind()
    left: list[Tensor] = stack.slices.gradients  # type: ignore[attr-defined]
    found = left.copy()
    left.clear()
    return found
