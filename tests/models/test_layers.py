import pytest
import torch
from torch import nn

from mvsa_tune.models.layers import StackedBatchNorm, StackedDropout, StackedLayerNorm, StackedLinear

R, B, D = 3, 7, 5


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_initial_weights_are_those_of_nn_linear_under_the_same_seed() -> None:
    stack = StackedLinear(R, 11, D)
    stack.reset(seeded(1, 2, 3))
    for r, seed in enumerate((1, 2, 3)):
        torch.manual_seed(seed)
        reference = nn.Linear(11, D)
        assert torch.equal(stack.weight[r], reference.weight)
        assert torch.equal(stack.bias[r, :, 0], reference.bias)


def test_stacked_linear_is_nn_linear_forward_and_backward() -> None:
    stack = StackedLinear(R, 11, D)
    stack.reset(seeded(1, 2, 3))
    x = torch.randn(R, B, 11)
    stack(x.transpose(1, 2)).square().sum().backward()
    for r in range(R):
        reference = nn.Linear(11, D)
        reference.load_state_dict({"weight": stack.weight[r].detach(), "bias": stack.bias[r, :, 0].detach()})
        out = reference(x[r])
        out.square().sum().backward()
        torch.testing.assert_close(stack(x.transpose(1, 2))[r].T, out)
        torch.testing.assert_close(stack.weight.grad[r], reference.weight.grad)  # type: ignore[index]
        torch.testing.assert_close(stack.bias.grad[r, :, 0], reference.bias.grad)  # type: ignore[index]


def test_stacked_batch_norm_is_nn_batch_norm_with_its_running_statistics() -> None:
    stack, references = StackedBatchNorm(R, D), [nn.BatchNorm1d(D) for _ in range(R)]
    for _ in range(4):
        x = torch.randn(R, D, B) * 3 + 1
        out = stack(x)
        for r, reference in enumerate(references):
            torch.testing.assert_close(out[r].T, reference(x[r].T))
            torch.testing.assert_close(stack.running_mean[r], reference.running_mean)
            torch.testing.assert_close(stack.running_var[r], reference.running_var)
    stack.eval()
    x = torch.randn(R, D, B)
    for r, reference in enumerate(references):
        torch.testing.assert_close(stack(x)[r].T, reference.eval()(x[r].T))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_its_rate_and_scales_the_rest(rate: float) -> None:
    layer = StackedDropout(rate)
    layer.generators = seeded(1, 2, 3)
    x = torch.ones(R, 400, 501)
    out = layer(x)
    for r in range(R):
        assert (out[r] == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / (1 - rate)))
    assert not torch.equal(out[0], out[1])
    # neighbouring units come from the same random word and are independent all the same
    dropped = (out == 0).float().flatten()
    assert torch.corrcoef(torch.stack([dropped[:-1], dropped[1:]]))[0, 1].abs() < 0.01


def test_each_replicates_mask_is_that_of_its_own_generator() -> None:
    layer = StackedDropout(0.5)
    layer.generators = seeded(1, 2, 3)
    together = [layer.mask(torch.Size([R, D, B]), torch.device("cpu")) for _ in range(2)]
    for r, seed in enumerate((1, 2, 3)):
        layer.generators = seeded(seed)
        alone = [layer.mask(torch.Size([1, D, B]), torch.device("cpu")) for _ in range(2)]
        assert all(torch.equal(both[r], single[0]) for both, single in zip(together, alone, strict=True))


def test_dropout_is_off_in_evaluation_and_at_rate_zero() -> None:
    x = torch.randn(R, D, B)
    assert StackedDropout(0.5).eval()(x) is x
    assert StackedDropout(0.0)(x) is x


def test_layer_norm_reckons_in_its_weights_format() -> None:
    x = 100 + torch.randn(R, D, B)
    torch.testing.assert_close(
        StackedLayerNorm(R, D)(x.bfloat16()).transpose(1, 2), nn.LayerNorm(D)(x.bfloat16().float().transpose(1, 2))
    )
