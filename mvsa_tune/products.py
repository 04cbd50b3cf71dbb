"""The matrix products of stacked layers, by the library that is fastest at them.

In float32 torch's own products on a CPU are MKL's, which on one that is not Intel's leaves half of the vector unit idle; oneDNN,
which torch has beside it, does not (bench/LOG.md). It is called replicate by replicate, so what a replicate gets does not depend
on the stack it is in.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# With fewer outputs one call for the whole stack is worth more than a faster one for each replicate.
LEAST_OUTPUTS = 16
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def by_onednn(like: Tensor, outputs: int) -> bool:
    """Whether products of so many outputs are oneDNN's."""
    return ONEDNN and like.dtype == torch.float32 and like.device.type == "cpu" and outputs >= LEAST_OUTPUTS


def multiply_each(left: Iterable[Tensor], right: Iterable[Tensor]) -> list[Tensor]:
    """R products of rows with rows by oneDNN, `(M, K)` and `(N, K)` → `(M, N)`, whatever their strides."""
    linear = torch.ops.mkldnn._linear_pointwise
    return [linear(one, other, None, "none", [], "") for one, other in zip(left, right, strict=True)]


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """The same of stacks, `(R, M, K)` and `(R, N, K)` → `(R, M, N)`, by whichever library."""
    if not by_onednn(left, left.shape[1]):
        return torch.bmm(left, right.transpose(1, 2))
    return torch.stack(multiply_each(left.unbind(), right.unbind()))


def mixed(device: torch.device) -> bool:
    """Whether a forward pass runs in mixed precision."""
    return torch.is_autocast_enabled(device.type)


class Linear(torch.autograd.Function):
    """`torch.baddbmm(bias, weight, x)`: `(R, out, 1)`, `(R, out, in)`, `(R, in, B)` → `(R, out, B)`."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(weight, x)
        return multiply(weight, x.transpose(1, 2)).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Multiply back; nothing for `x` where nobody asks."""
        weight, x = ctx.saved_tensors
        to_x = (
            multiply(weight.transpose(1, 2), gradient.transpose(1, 2)).to(x.dtype) if ctx.needs_input_grad[2] else None
        )
        return gradient.sum(dim=2, keepdim=True), multiply(gradient, x), to_x


class Hidden(torch.autograd.Function):
    """A hidden layer in training, Linear → BatchNorm → ReLU → Dropout, in one: half of the passes over the activations.

    What the linear layer's bias adds, BatchNorm takes away: it gets a gradient of 0, where layer after layer it would get one of
    rounding noise, which Adam scales up to full steps.
    """

    @staticmethod
    def forward(
        ctx: Any, bias: Tensor, gain: Tensor, shift: Tensor, x: Tensor, kept: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layer.

        Args:
            ctx: autograd's.
            bias: `(R, D, 1)` the linear layer's.
            gain: `(R, D, 1)` what BatchNorm multiplies by, over the share of units that dropout keeps.
            shift: `(R, D, 1)` what it adds, over the same.
            x: `(R, in, B)`.
            kept: `(R, D, B)` 1 where dropout keeps a unit, 0 elsewhere; None for all.
            weights: the linear layer's: `(R, D, in)`, or R times `(D, in)`, whose gradients then need not be put together.

        Returns:
            `(R, D, B)`, and the mean and the biased variance `(R, D, 1)` of what BatchNorm took.
        """
        narrow = torch.bfloat16 if mixed(x.device) else gain.dtype
        weights, x = tuple(weight.to(narrow) for weight in weights), x.to(narrow)
        with torch.autocast(x.device.type, enabled=False):
            if weights[0].dim() == 3:
                units = multiply(weights[0], x.transpose(1, 2)).to(gain.dtype)
            else:
                units = torch.stack(multiply_each(weights, x.transpose(1, 2).unbind()))
            mean = units.mean(dim=2, keepdim=True)
            units.sub_(mean)
            variance = torch.linalg.vector_norm(units, dim=2, keepdim=True).square_().div_(x.shape[2])
            inverse = (variance + 1e-5).rsqrt_()
            out = (units * (inverse * gain)).add_(shift).clamp_min_(0)
            if kept is not None:
                out.mul_(kept)
        ctx.save_for_backward(gain, x, units, inverse, out, *weights)
        mean.add_(bias)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Run it back."""
        gain, x, units, inverse, out, *weights = ctx.saved_tensors
        R, D, B = units.shape
        # Where nothing came out, nothing goes back: ReLU's zeros and dropout's at once.
        gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        centred = torch.zeros(R * D, dtype=units.dtype, device=units.device)
        to_units, to_gain, to_shift = torch.ops.aten.native_batch_norm_backward(
            gradient.view(1, R * D, B),
            units.view(1, R * D, B),
            gain.reshape(-1),
            None,
            None,
            centred,
            inverse.view(-1),
            True,
            1e-5,
            [True, True, True],
        )
        to_units = to_units.view(R, D, B).to(x.dtype)
        whole = weights[0].dim() == 3
        to_weights = [multiply(to_units, x).to(gain.dtype)] if whole else multiply_each(to_units.unbind(), x.unbind())
        to_x = None
        if ctx.needs_input_grad[3]:
            weight = weights[0] if whole else torch.stack(weights)
            to_x = multiply(weight.transpose(1, 2), to_units.transpose(1, 2))
        return centred.view(R, D, 1), to_gain.view(R, D, 1), to_shift.view(R, D, 1), to_x, None, *to_weights
