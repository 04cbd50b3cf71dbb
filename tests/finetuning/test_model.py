"""What is done to encoders before and while they are fine-tuned."""

import pytest
import torch
from torch import nn

from mvsa_tune.finetuning.model import Network, drawing_from, freeze, layers, random_states, recompute, train_mode
from mvsa_tune.tune.estimate import saved_bytes

CPU = torch.device("cpu")


def encoder() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2)) for _ in range(3)]
    return nn.Sequential(*blocks)


class Sum(nn.Module):
    """A head of one replicate whose logits are the vectors' sums."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum(inputs.values())  # type: ignore[return-value]


def test_layers_come_in_the_order_of_the_data_through_them() -> None:
    assert [type(layer).__name__ for layer in layers(encoder())] == ["Linear", "BatchNorm1d"] * 3
    transformer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8), 2)
    assert (
        len(layers(transformer)) == 2 * 6
    )  # attention (which owns its input's weights) and its output, two linear, two norms


@pytest.mark.parametrize(("share", "frozen"), [(0.0, 0), (0.34, 2), (0.5, 3), (0.99, 6)])
def test_the_first_share_of_the_layers_is_frozen(share: float, frozen: int) -> None:
    model = encoder()
    freeze(model, share)
    assert [all(not p.requires_grad for p in layer.parameters()) for layer in layers(model)] == [True] * frozen + [
        False
    ] * (6 - frozen)


def test_batchnorm_keeps_its_statistics_unless_they_are_updated_and_never_moves_those_of_frozen_layers() -> None:
    x = torch.randn(32, 6) * 3 + 1
    moved = {}
    for how in ("kept", "updated"):
        network = Network({"image": encoder()}, Sum(), "none")
        freeze(network.encoders["image"], 0.34)
        train_mode(network, how)
        network({"image": (x,)})
        norms = [module for module in network.encoders.modules() if isinstance(module, nn.BatchNorm1d)]
        moved[how] = [bool(norm.running_mean.abs().sum() > 0) for norm in norms]
        assert network.head.norm.training and network.encoders["image"][0][3].training  # dropout is on
    assert moved == {"kept": [False] * 3, "updated": [False, True, True]}


def test_a_network_is_its_encoders_then_the_normalisation_then_its_head() -> None:
    image, text = nn.Linear(4, 6), nn.Linear(3, 6)
    x, y = torch.randn(5, 4), torch.randn(5, 3)
    for how in ("none", "l2"):
        logits = Network({"image": image, "text": text}, Sum(), how)({"image": (x,), "text": (y,)})
        vectors = [image(x), text(y)]
        if how == "l2":
            vectors = [block / block.norm(dim=1, keepdim=True) for block in vectors]
        torch.testing.assert_close(logits, vectors[0] + vectors[1])


def test_running_blocks_again_gives_the_same_gradients_and_keeps_less() -> None:
    torch.manual_seed(1)
    x, gradients, memory = torch.randn(64, 6), [], []
    for again in (False, True):
        model = encoder().train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        if again:
            recompute(model)
        torch.manual_seed(2)
        with saved_bytes(nn.Module()) as kept:
            model(x).square().sum().backward()
            memory.append(kept())
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)  # the dropout masks are the same, too
    assert memory[1] < memory[0]


def test_saved_bytes_counts_what_a_product_keeps() -> None:
    weight, x = torch.randn(8, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)
    with saved_bytes(nn.Module()) as kept:
        product = weight @ x
        assert kept() == 2 * 8 * 8 * 4  # both factors
        product.exp().sum().backward()
        assert kept() == 3 * 8 * 8 * 4  # and the output of exp


def test_each_replicate_continues_its_random_numbers_and_leaves_the_global_ones_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = random_states(1, CPU), random_states(2, CPU)
    drawn = []
    for states in (first, second, first):
        with drawing_from(states, CPU):
            drawn.append(torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.cat([drawn[0], drawn[2]]), torch.cat([torch.rand(3), torch.rand(3)]))
    assert not torch.equal(drawn[0], drawn[1])
