"""Products by oneDNN, and hidden layers as a single operation: each against torch.nn."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from mvsa_tune.models.layers import StackedTowers
from mvsa_tune.models.matmul import BLAS, LEAST, ONEDNN, Linear, by_onednn, multiply
from mvsa_tune.training.optimizer import StackedAdamW

R, WIDTH, D, B = 3, 70, 32, 21
WIDTHS = {"image": WIDTH, "text": 48}
NEAR = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("terms", [3, WIDTH])
@pytest.mark.parametrize("outputs", [LEAST - 1, LEAST, 40])
def test_products_of_strided_matrices_are_those_of_float64(outputs: int, terms: int) -> None:
    left, right = torch.randn(R, terms, outputs).mT, torch.randn(R, B, terms)
    assert by_onednn(left) == (ONEDNN and outputs >= LEAST and terms >= LEAST)
    exact = torch.einsum("rmk,rnk->rmn", left.double(), right.double())
    torch.testing.assert_close(multiply(left, right).double(), exact, **NEAR)


@pytest.mark.long
def test_the_library_is_chosen_by_the_instructions_of_the_cpu() -> None:
    code = "import torch; from mvsa_tune.models.matmul import library; print(library(torch.device('cpu')))"
    for capability in ("avx2", "default"):
        environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
        ended = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert ended.stdout.strip() == BLAS


def test_a_linear_layer_is_baddbmm_forward_and_backward() -> None:
    inputs = [torch.randn(*shape, requires_grad=True) for shape in ((R, D, 1), (R, D, WIDTH), (R, WIDTH, B))]
    target = torch.randn(R, D, B)
    ways: list[list[Tensor]] = []
    for way in (Linear.apply, torch.baddbmm):
        out = way(*inputs)
        ways.append([out, *torch.autograd.grad((out * target).sum(), inputs)])
    for values, expected in zip(*ways, strict=True):
        torch.testing.assert_close(values, expected, **NEAR)


@pytest.mark.parametrize("apart", [False, True])
def test_hidden_layers_are_their_torch_nn_form_with_weights_together_and_apart(apart: bool) -> None:
    towers = StackedTowers(R, WIDTHS, D, dropout=0.0)
    layers: dict[str, list[nn.Module]] = {}
    for name, tower in towers.items():
        tower.linear.reset([torch.Generator().manual_seed(seed) for seed in range(R)])  # type: ignore[union-attr, operator]
        for parameter in tower.norm.parameters():
            parameter.data.add_(torch.randn(R, D) / 4)
        layers[name] = [nn.Sequential(nn.Linear(WIDTHS[name], D), nn.BatchNorm1d(D), nn.ReLU()) for _ in range(R)]
        for r, single in enumerate(layers[name]):
            state = {"0.weight": tower.linear.weight[r], "0.bias": tower.linear.bias[r, :, 0]}  # type: ignore[union-attr, index]
            state |= {"1.weight": tower.norm.weight[r], "1.bias": tower.norm.bias[r]}  # type: ignore[union-attr, index]
            single.load_state_dict(state, strict=False)  # type: ignore[arg-type]
    if apart:
        StackedAdamW(towers.parameters(), 0.0)
    x = {name: torch.randn(R, B, width, requires_grad=True) for name, width in WIDTHS.items()}
    target = torch.randn(R, 2 * D, B)
    out = towers({name: vectors.mT for name, vectors in x.items()})
    (out * target).sum().backward()
    for index, (name, tower) in enumerate(towers.items()):
        units = slice(index * D, (index + 1) * D)
        left = tower.linear.weight.slices.gradients if apart and ONEDNN else tower.linear.weight.grad  # type: ignore[union-attr]
        for r, single in enumerate(layers[name]):
            vectors = x[name][r].detach().clone().requires_grad_()
            expected = single(vectors)
            (expected * target[r, units].T).sum().backward()
            torch.testing.assert_close(out[r, units].T, expected, **NEAR)
            torch.testing.assert_close(x[name].grad[r], vectors.grad, **NEAR)  # type: ignore[index]
            torch.testing.assert_close(left[r], single[0].weight.grad, **NEAR)  # type: ignore[index]
            torch.testing.assert_close(tower.norm.weight.grad[r], single[1].weight.grad, **NEAR)  # type: ignore[union-attr, index]
            torch.testing.assert_close(tower.norm.bias.grad[r], single[1].bias.grad, **NEAR)  # type: ignore[union-attr, index]
            torch.testing.assert_close(tower.norm.running_mean[r], single[1].running_mean, **NEAR)  # type: ignore[union-attr, index]
            torch.testing.assert_close(tower.norm.running_var[r], single[1].running_var, **NEAR)  # type: ignore[union-attr, index]
