"""Products by oneDNN, a hidden layer in one, and AdamW over stacks: each against torch's own."""

import pytest
import torch
from torch import Tensor, nn

from mvsa_tune.adam import StackedAdamW
from mvsa_tune.layers import StackedTower
from mvsa_tune.products import LEAST_OUTPUTS, ONEDNN, Linear, by_onednn, multiply

R, WIDTH, D, B = 3, 70, 32, 21
NEAR = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("outputs", [LEAST_OUTPUTS - 1, LEAST_OUTPUTS, 40])
def test_products_of_strided_matrices_are_those_of_float64(outputs: int) -> None:
    left, right = torch.randn(R, WIDTH, outputs).transpose(1, 2), torch.randn(R, B, WIDTH)
    assert by_onednn(left, outputs) == (ONEDNN and outputs >= LEAST_OUTPUTS)
    exact = torch.einsum("rmk,rnk->rmn", left.double(), right.double())
    torch.testing.assert_close(multiply(left, right).double(), exact, **NEAR)


def test_a_linear_layer_is_baddbmm_forward_and_backward() -> None:
    inputs = [torch.randn(*shape, requires_grad=True) for shape in ((R, D, 1), (R, D, WIDTH), (R, WIDTH, B))]
    target = torch.randn(R, D, B)
    ways: list[list[Tensor]] = []
    for way in (Linear.apply, torch.baddbmm):
        out = way(*inputs)
        ways.append([out, *torch.autograd.grad((out * target).sum(), inputs)])
    for ours, theirs in zip(*ways, strict=True):
        torch.testing.assert_close(ours, theirs, **NEAR)


@pytest.mark.parametrize("apart", [False, True])
def test_a_hidden_layer_is_its_torch_nn_form_with_weights_together_and_apart(apart: bool) -> None:
    tower = StackedTower(R, WIDTH, D, dropout=0.0)
    tower.linear.reset([torch.Generator().manual_seed(seed) for seed in range(R)])
    with torch.no_grad():
        tower.norm.weight.add_(torch.randn(R, D) / 4)
        tower.norm.bias.add_(torch.randn(R, D) / 4)
    plain = [nn.Sequential(nn.Linear(WIDTH, D), nn.BatchNorm1d(D), nn.ReLU()) for _ in range(R)]
    for r, one in enumerate(plain):
        state = {"0.weight": tower.linear.weight[r], "0.bias": tower.linear.bias[r, :, 0]}
        one.load_state_dict(state | {"1.weight": tower.norm.weight[r], "1.bias": tower.norm.bias[r]}, strict=False)
    if apart:
        StackedAdamW(tower.parameters(), 0.0)
    assert len(tower.linear.weights(torch.empty(0))) == (R if apart and ONEDNN else 1)
    x, target = torch.randn(R, B, WIDTH, requires_grad=True), torch.randn(R, D, B)
    out = tower(x.transpose(1, 2))
    (out * target).sum().backward()
    for r, one in enumerate(plain):
        mine = x[r].detach().clone().requires_grad_()
        expected = one(mine)
        (expected * target[r].T).sum().backward()
        torch.testing.assert_close(out[r].T, expected, **NEAR)
        torch.testing.assert_close(x.grad[r], mine.grad, **NEAR)  # type: ignore[index]
        whole = tower.linear.weight.grad
        found = tower.linear.weight.own[r].grad if whole is None else whole[r]  # type: ignore[attr-defined]
        torch.testing.assert_close(found, one[0].weight.grad, **NEAR)
        torch.testing.assert_close(tower.norm.weight.grad[r], one[1].weight.grad, **NEAR)  # type: ignore[index]
        torch.testing.assert_close(tower.norm.running_mean[r], one[1].running_mean, **NEAR)
        torch.testing.assert_close(tower.norm.running_var[r], one[1].running_var, **NEAR)


def test_adamw_over_stacks_is_torchs_with_a_rate_for_each_replicate() -> None:
    stack, rates = nn.Parameter(torch.randn(R, 5, 7)), [1e-2, 1e-3, 1e-2]
    singles = [nn.Parameter(one.detach().clone()) for one in stack]
    ours = StackedAdamW([stack], weight_decay=0.1)
    theirs = [torch.optim.AdamW([one], lr=rate, weight_decay=0.1) for one, rate in zip(singles, rates, strict=True)]
    for step in range(4):
        gradient = torch.randn(R, 5, 7)
        stack.grad = gradient.clone()
        skipped = 1 if step == 2 else None  # a replicate whose epoch is over
        ours.step([None if r == skipped else rate for r, rate in enumerate(rates)])
        assert stack.grad is None
        for r, (one, optimizer) in enumerate(zip(singles, theirs, strict=True)):
            if r != skipped:
                one.grad = gradient[r]
                optimizer.step()
            torch.testing.assert_close(stack[r], one)
