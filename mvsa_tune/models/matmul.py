"""The matrix products of stacked layers, by the library that is fastest at them.

In float32 torch's own products on a CPU are MKL's, which on one that is not Intel's leaves half of the vector unit idle; oneDNN,
which torch has beside it, does not (bench/LOG.md). It is called replicate by replicate, so what a replicate gets does not depend
on the stack it is in.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# With fewer outputs, or terms, one call for the whole stack is worth more than a faster one for each replicate.
LEAST = 16
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


# MKL rounds a product by where its result begins: at a multiple of 16 bytes, or not. With a multiple of four outputs each
# replicate's begins at one whatever B is, as that of a replicate alone does.
ALIGNED = 4


def padded(left: Tensor) -> Tensor:
    """`(R, M, K)` with M brought to a multiple of four by rows of zeros."""
    lacking = -left.shape[1] % ALIGNED
    return F.pad(left, (0, 0, 0, lacking)) if lacking else left


def by_onednn(left: Tensor) -> bool:
    """Whether products of `(R, M, K)` with `(R, N, K)` are oneDNN's."""
    return ONEDNN and left.dtype == torch.float32 and left.device.type == "cpu" and min(left.shape[1:]) >= LEAST


def multiply_each(left: Iterable[Tensor], right: Iterable[Tensor]) -> list[Tensor]:
    """R products of rows with rows by oneDNN, `(M, K)` and `(N, K)` → `(M, N)`, whatever their strides."""
    linear = torch.ops.mkldnn._linear_pointwise
    return [linear(one, other, None, "none", [], "") for one, other in zip(left, right, strict=True)]


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """The same of stacks, `(R, M, K)` and `(R, N, K)` → `(R, M, N)`, by whichever library."""
    if not by_onednn(left):
        return torch.bmm(padded(left), right.transpose(1, 2))[:, : left.shape[1]]
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


@dataclass(frozen=True)
class Slices:
    """A stack of weights as its optimizer holds it: a tensor for each replicate, and where its gradient is left.

    A stack of gradients would have to be put together, which costs as much as a sixth of their products (bench/LOG.md).
    """

    own: Sequence[Tensor]
    gradients: list[Tensor]


class Hidden(torch.autograd.Function):
    """M modalities' hidden layers in training, Linear → BatchNorm → ReLU → Dropout, in one: half of the passes over the activations.

    What a linear layer's bias adds, BatchNorm takes away: it gets a gradient of 0, where layer after layer it would get one of
    rounding noise, which Adam scales up to full steps.
    """

    @staticmethod
    def forward(
        ctx: Any, slices: Sequence[Slices | None], kept: Tensor | None, scale: float, *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layers.

        Args:
            ctx: autograd's.
            slices: by modality the weights as an optimizer steps them: then autograd gets no gradient of theirs.
            kept: `(R, M × D, B)` 1 where dropout keeps a unit, 0 elsewhere; None for all.
            scale: what dropout multiplies by.
            tensors: M each of the linear layers' biases `(R, D, 1)`, BatchNorm's weights and biases `(R, D)`, inputs
                `(R, in, B)`, and the linear layers' weights `(R, D, in)`.

        Returns:
            `(R, M × D, B)`, modality behind modality, and the mean and the biased variance `(R, M × D, 1)` of what BatchNorm took.
        """
        biases, gains, shifts, inputs, weights = _in_groups(tensors, len(slices))
        gain = torch.cat(gains, dim=1).mul_(scale).unsqueeze_(2)
        shift = torch.cat(shifts, dim=1).mul_(scale).unsqueeze_(2)
        narrow = torch.bfloat16 if mixed(gain.device) else gain.dtype
        inputs, weights = ([own.to(narrow) for own in group] for group in (inputs, weights))
        with torch.autocast(gain.device.type, enabled=False):
            if all(slices):
                apart = [multiply_each(one.own, x.mT.unbind()) for one, x in zip(slices, inputs, strict=True) if one]
                units = torch.cat([own for replicate in zip(*apart, strict=True) for own in replicate])
                units = units.view(*gain.shape[:2], -1)
            else:
                units = gain.new_empty(*gain.shape[:2], inputs[0].shape[2])
                for place, weight, x in zip(units.chunk(len(slices), dim=1), weights, inputs, strict=True):
                    place.copy_(multiply(weight, x.mT))
            mean = units.mean(dim=2, keepdim=True)
            units.sub_(mean)
            variance = torch.linalg.vector_norm(units, dim=2, keepdim=True).square_().div_(units.shape[2])
            inverse = (variance + 1e-5).rsqrt_()
            out = (units * (inverse * gain)).add_(shift).clamp_min_(0)
            if kept is not None:
                out.mul_(kept)
        ctx.slices, ctx.scale = slices, scale
        ctx.save_for_backward(gain, units, inverse, out, *inputs, *weights)
        mean.add_(torch.cat(biases, dim=1))
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Run them back."""
        gain, units, inverse, out, *rest = ctx.saved_tensors
        M, (R, D, B) = len(ctx.slices), units.shape
        inputs, weights = _in_groups(rest, M)
        # Where nothing came out, nothing goes back: ReLU's zeros and dropout's at once.
        gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        centred = torch.zeros(R * D, dtype=units.dtype, device=units.device)
        to_units, to_gain, to_shift = torch.ops.aten.native_batch_norm_backward(
            gradient.view(1, R * D, B),
            units.view(1, R * D, B),
            gain.view(-1),
            None,
            None,
            centred,
            inverse.view(-1),
            True,
            1e-5,
            [True, True, True],
        )
        to_norm = [own.mul_(ctx.scale).view(R, D).chunk(M, dim=1) for own in (to_gain, to_shift)]
        to_linear = centred.view(R, D, 1).chunk(M, dim=1)
        to_inputs: list[Tensor | None] = [None] * M
        to_weights: list[Tensor | None] = [None] * M
        for m, (own, x, weight) in enumerate(zip(to_units.view(R, D, B).chunk(M, dim=1), inputs, weights, strict=True)):
            own = own.to(x.dtype)
            if ctx.needs_input_grad[3 + 3 * M + m]:
                to_inputs[m] = multiply(weight.mT, own.mT)
            if one := ctx.slices[m]:
                one.gradients[:] = multiply_each(own.unbind(), x.unbind())
            else:
                to_weights[m] = multiply(own, x).to(gain.dtype)
        return None, None, None, *to_linear, *to_norm[0], *to_norm[1], *to_inputs, *to_weights


def _in_groups(tensors: Sequence[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Cut into groups of one size."""
    return (list(tensors[start : start + size]) for start in range(0, len(tensors), size))
