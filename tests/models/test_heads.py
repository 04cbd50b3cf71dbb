from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mvsa_tune.config import Config
from mvsa_tune.errors import InputError
from mvsa_tune.models import layers
from mvsa_tune.models.heads import HEADS, HeadShape, HeadSpec, build_head, count_parameters, register_head
from mvsa_tune.models.layers import StackedDropout, initialise, run_some

R, B, D = 3, 7, 16
RATE = 0.25
WIDTHS = {"image": 6, "text": 4}


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def vectors(widths: Mapping[str, int], replicates: int, samples: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(replicates, width, samples, generator=generator, dtype=torch.float64)
        for name, width in widths.items()
    }


def vectors32() -> dict[str, Tensor]:
    return {modality: x.float() for modality, x in vectors(WIDTHS, R, B).items()}


def drop(x: Tensor) -> Tensor:
    """Stand in for dropout, in the stack (`scaling_dropout`) and in torch.nn: its places and rate are compared too."""
    return x / (1 - RATE)


@pytest.fixture
def scaling_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StackedDropout, "forward", lambda layer, x: x / (1 - layer.rate))
    # A hidden layer takes the mask alone, and divides by 1 - rate itself.
    monkeypatch.setattr(StackedDropout, "mask", lambda layer, shape, device: torch.ones(shape))


class Block(nn.Module):
    """A transformer block in torch.nn, tokens `(B, T, D)`."""

    def __init__(self, context: bool) -> None:
        super().__init__()
        self.attention, self.attention_norm = nn.MultiheadAttention(D, 8, batch_first=True), nn.LayerNorm(D)
        if context:
            self.cross, self.cross_norm = nn.MultiheadAttention(D, 8, batch_first=True), nn.LayerNorm(D)
        self.widen, self.narrow, self.norm = nn.Linear(D, 4 * D), nn.Linear(4 * D, D), nn.LayerNorm(D)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.attention_norm(x + drop(self.attention(x, x, x)[0]))
        if context is not None:
            x = self.cross_norm(x + drop(self.cross(x, context, context)[0]))
        return self.norm(x + drop(self.narrow(nn.functional.gelu(self.widen(x)))))


class Plain(nn.Module):
    """One replicate of any head in torch.nn, its parts called as the stack's are."""

    def __init__(self, name: str, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.name, both, total = name, len(widths) > 1, sum(widths.values())
        units = {"gated": D, "bilinear": D, "linear": total}
        if name == "late":
            self.heads = nn.ModuleDict({m: Plain("concat", {m: w}) for m, w in widths.items()})
            return
        self.classifier = nn.Linear(units.get(name, D * len(widths)), 3)
        if name == "linear":
            return
        towers = {m: nn.ModuleDict({"linear": nn.Linear(w, D), "norm": nn.BatchNorm1d(D)}) for m, w in widths.items()}
        if name == "concat-shared-norm" and both:
            del towers["text"]["norm"]
        self.towers = nn.ModuleDict(towers)
        if name == "cross-attention" and both:
            self.image, self.text = nn.Linear(D, 3 * D), nn.Linear(D, 3 * D)
            self.attention = nn.MultiheadAttention(D, 8, batch_first=True)
        if name == "merged-attention":
            self.mix = Block(context=False)
        if name == "co-attention":
            self.blocks = nn.ModuleDict({m: Block(context=both) for m in widths})
        if name == "bilinear":
            self.factors = nn.ModuleDict({m: nn.Linear(D, D) for m in widths})
        if name == "gated" and both:
            self.gate = nn.Linear(total, D)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`{modality: (B, width)}` → logits `(B, 3)`."""
        if self.name == "late":
            return sum(head({m: inputs[m]}) for m, head in self.heads.items()) / len(self.heads)
        if self.name == "linear":
            return self.classifier(torch.cat([*inputs.values()], 1))
        first = next(iter(self.towers.values()))
        norms = {m: t["norm"] if "norm" in t else first["norm"] for m, t in self.towers.items()}
        h = {m: drop(torch.relu(norms[m](t["linear"](inputs[m])))) for m, t in self.towers.items()}
        tokens = torch.stack([*h.values()], 1)  # (B, T, D)
        if self.name == "cross-attention" and len(h) > 1:
            tokens = torch.stack([self.text(h["text"]), self.image(h["image"])], 1)
            tokens = self.attention(*tokens.chunk(3, dim=2))[0]
        if self.name == "merged-attention":
            tokens = self.mix(tokens)
        if self.name == "co-attention":
            token = {m: x[:, None] for m, x in h.items()}
            if len(h) == 1:
                tokens = next(self.blocks[m](x) for m, x in token.items())
            else:
                image, text = self.blocks["image"], self.blocks["text"]
                tokens = torch.cat([image(token["image"], token["text"]), text(token["text"], token["image"])], 1)
        fused = tokens.flatten(1)
        if self.name == "bilinear":
            fused = torch.ones(())
            for m, x in h.items():
                fused = fused * self.factors[m](x)
        if self.name == "gated" and len(h) > 1:
            z = torch.sigmoid(self.gate(torch.cat([inputs["image"], inputs["text"]], 1)))
            fused = z * h["image"] + (1 - z) * h["text"]
        return self.classifier(fused)


def pairs(plain: nn.Module, head: nn.Module, r: int, grad: bool) -> list[tuple[Tensor, Tensor]]:
    """The parameters of a plain head, or their gradients, each beside the stack's for replicate r."""
    triples = []
    for name, module in plain.named_modules():
        if name.endswith("out_proj"):
            continue
        stacked = head.get_submodule(name)
        if isinstance(module, nn.MultiheadAttention):
            for i, part in enumerate(("query", "key", "value")):
                if hasattr(stacked, part):
                    rows = slice(i * D, (i + 1) * D)
                    layer = getattr(stacked, part)
                    triples += [(module.in_proj_weight, rows, layer.weight), (module.in_proj_bias, rows, layer.bias)]
            triples += [
                (module.out_proj.weight, ..., stacked.out.weight),
                (module.out_proj.bias, ..., stacked.out.bias),
            ]
        elif isinstance(module, (nn.Linear, nn.BatchNorm1d, nn.LayerNorm)):
            triples += [(module.weight, ..., stacked.weight), (module.bias, ..., stacked.bias)]
    of = (lambda p: p.grad) if grad else (lambda p: p.data)
    return [(of(parameter)[rows], of(stack)[r].reshape(parameter[rows].shape)) for parameter, rows, stack in triples]


@pytest.mark.usefixtures("scaling_dropout")
@pytest.mark.parametrize("modalities", [("image", "text"), ("text",), ("image",)])
@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_its_torch_nn_form_forward_and_backward(name: str, modalities: Sequence[str]) -> None:
    widths = {modality: WIDTHS[modality] for modality in modalities}
    head = build_head(name, R, widths, D, 3, dropout=RATE).double()
    initialise(head, seeded(1, 2, 3), seeded(4, 5, 6))
    for parameter in head.parameters():  # norms too are to differ between replicates
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=seeded(7)[0], dtype=torch.float64)
    inputs = vectors(widths, R, B)
    target = torch.randn(R, 3, B, dtype=torch.float64)
    for x in inputs.values():
        x.requires_grad_()
    logits = head(inputs)
    (logits * target).sum().backward()
    near = {"rtol": 1e-6, "atol": 1e-9}
    for r in range(R):
        plain = Plain(name, widths).double()
        copied = pairs(plain, head, r, grad=False)
        for parameter, stack in copied:
            parameter.copy_(stack)
        vectors_r = {m: x[r].detach().T.clone().requires_grad_() for m, x in inputs.items()}
        out = plain(vectors_r)
        torch.testing.assert_close(logits[r].T, out, **near)
        (out * target[r].T).sum().backward()
        for parameter, stack in pairs(plain, head, r, grad=True):
            torch.testing.assert_close(stack, parameter, **near)
        for m, x in inputs.items():
            torch.testing.assert_close(x.grad[r].T, vectors_r[m].grad, **near)  # type: ignore[index]
        assert sum(stack.numel() for _, stack in copied) == count_parameters(name, widths, D, 3)  # and none is left out


class ReferenceHead(nn.Module):
    """The heads that the reference's scripts define for two modalities, layer by layer in torch.nn.

    Fine-tuning has one BatchNorm for both. The later head projects each modality six ways before its attention.
    """

    def __init__(self, units: int, heads: int, norms: int) -> None:
        super().__init__()
        self.to_units = nn.ModuleList([nn.Linear(WIDTHS[m], units) for m in ("image", "text")])
        self.norms = nn.ModuleList([nn.BatchNorm1d(units) for _ in range(norms)])
        if heads:
            self.projections = nn.ModuleList([nn.Linear(units, units) for _ in range(6)])
            self.attention = nn.MultiheadAttention(units, heads, batch_first=True)
        self.classifier = nn.Linear(2 * units, 3)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        image = self.norms[0](self.to_units[0](image)).relu()
        text = self.norms[-1](self.to_units[1](text)).relu()
        if self.training:
            image, text = drop(image), drop(text)
        if not hasattr(self, "attention"):
            return self.classifier(torch.cat([image, text], dim=1))
        of_image, of_text = ([layer(x) for layer in self.projections[i::2]] for i, x in enumerate((image, text)))
        query, key, value = (torch.stack(pair, dim=1) for pair in zip(of_text, of_image, strict=True))
        return self.classifier(self.attention(query, key, value)[0].flatten(1))


@torch.no_grad()
def give_weights(reference: ReferenceHead, head: nn.Module, r: int) -> None:
    """Copy the reference's weights into replicate r of a stack."""
    towers, D = list(head.towers.values()), reference.classifier.in_features // 2  # type: ignore[union-attr, operator]
    same = list(zip(reference.to_units, [tower.linear for tower in towers], strict=True))
    same += zip(reference.norms, [tower.norm for tower in towers if hasattr(tower, "norm")], strict=True)
    same += [(reference.classifier, head.classifier)]
    weights = [(layer.weight, stack.weight[r]) for layer, stack in same]
    weights += [(layer.bias, stack.bias[r].flatten()) for layer, stack in same]
    if attention := getattr(reference, "attention", None):
        projections = [(reference.projections[i::2], getattr(head, m)) for i, m in enumerate(("image", "text"))]
        for own, stack in projections:
            weights += [(layer.weight, stack.weight[r, i * D :][:D]) for i, layer in enumerate(own)]
            weights += [(layer.bias, stack.bias[r, i * D :][:D, 0]) for i, layer in enumerate(own)]
        for i, name in enumerate(("query", "key", "value")):
            stack = head.attention.get_submodule(name)  # type: ignore[union-attr]
            weights += [(attention.in_proj_weight[i * D :][:D], stack.weight[r])]
            weights += [(attention.in_proj_bias[i * D :][:D], stack.bias[r, :, 0])]
        weights += [(attention.out_proj.weight, head.attention.out.weight[r])]  # type: ignore[union-attr, union-attr]
        weights += [(attention.out_proj.bias, head.attention.out.bias[r, :, 0])]  # type: ignore[union-attr]
    for parameter, stack in weights:
        stack.copy_(parameter)


@pytest.mark.usefixtures("scaling_dropout")
@pytest.mark.parametrize(
    ("name", "units", "heads", "norms"),
    [
        ("concat", 16, 0, 2), ("concat-shared-norm", 16, 0, 1), ("concat-shared-norm", 24, 0, 1),
        ("cross-attention", 8, 8, 2), ("cross-attention", 16, 8, 2), ("cross-attention", 64, 8, 2),
        ("cross-attention", 16, 4, 2),
    ],
)  # fmt: skip
def test_a_head_of_the_reference_gives_its_logits_with_its_weights_in_training_and_after(
    name: str, units: int, heads: int, norms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "ATTENTION_HEADS", heads)
    head = build_head(name, R, WIDTHS, units, 3, dropout=RATE).double()
    references = [ReferenceHead(units, heads, norms).double() for _ in range(R)]
    for r, reference in enumerate(references):
        nn.init.uniform_(reference.norms[-1].weight, 0.5, 2.0)
        give_weights(reference, head, r)
    assert count_parameters(name, WIDTHS, units, 3) == sum(p.numel() for p in references[0].parameters())
    for step in range(3):  # the running statistics are compared by what comes out in evaluation
        for mode in (True, False):
            inputs = {m: x + step for m, x in vectors(WIDTHS, R, B).items()}
            logits = head.train(mode)(inputs)
            for r, reference in enumerate(references):
                expected = reference.train(mode)(inputs["image"][r].T, inputs["text"][r].T)
                torch.testing.assert_close(logits[r].T, expected, rtol=1e-9, atol=1e-9)


def test_the_references_attention_begins_as_torchs_does() -> None:
    units = 64
    head = build_head("cross-attention", 20, WIDTHS, units, 3, dropout=RATE)
    initialise(head, seeded(*range(20)), seeded(*range(20)))
    torch.manual_seed(0)
    plain, attention = nn.MultiheadAttention(units, 8), head.attention
    parts = {"query": 0, "key": 1, "value": 2}
    for name, layer in attention.named_children():  # type: ignore[union-attr]
        i = parts.get(name)
        expected = plain.out_proj.weight if i is None else plain.in_proj_weight[i * units :][:units]
        assert not layer.bias.any() and not plain.in_proj_bias.any() and not plain.out_proj.bias.any()
        assert layer.weight.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=1e-2)
        assert layer.weight.std().item() == pytest.approx(expected.std().item(), rel=2e-2)
    for layer in (head.text, head.image):  # those before it are linear layers as any
        assert layer.bias.abs().max().item() == pytest.approx(1 / 8, rel=1e-2)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", HEADS)
def test_dropout_draws_from_the_generators_meant_for_it(name: str) -> None:
    head, dropout = build_head(name, R, WIDTHS, D, 3, dropout=RATE), seeded(4, 5, 6)
    initialise(head, seeded(1, 2, 3), dropout)
    assert all(layer.generators is dropout for layer in head.modules() if isinstance(layer, StackedDropout))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_trains_in_mixed_precision(name: str) -> None:
    head = build_head(name, R, WIDTHS, D, 3, dropout=0.0)
    initialise(head, seeded(1, 2, 3), seeded(4, 5, 6))
    inputs = vectors32()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = head(inputs)
    torch.testing.assert_close(mixed.float(), head(inputs), rtol=0.1, atol=0.05)
    mixed.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["concat-shared-norm", "cross-attention", "gated", "late"])
def test_with_one_modality_there_is_nothing_to_fuse(name: str) -> None:
    inputs, logits = vectors({"text": 4}, R, B), []
    for which in (name, "concat"):
        head = build_head(which, R, {"text": 4}, D, 3, dropout=0.5).double()
        initialise(head, seeded(1, 2, 3), seeded(4, 5, 6))
        logits.append(head(inputs))
    assert torch.equal(*logits)


# At D 256 on vectors of MobileNetV2 (1,280) and MiniLM (384), three classes; a tower is Linear(width, D) and BatchNorm.
IMAGE, TEXT = 1280 * 256 + 256 + 512, 384 * 256 + 256 + 512
SQUARE, NORM = 256 * 256 + 256, 512
BLOCK = NORM + (256 * 1024 + 1024) + (1024 * 256 + 256) + NORM  # less its attentions
PARAMETERS = {
    "concat": (IMAGE + TEXT + 512 * 3 + 3, TEXT + 256 * 3 + 3),
    "concat-shared-norm": (IMAGE + TEXT - NORM + 512 * 3 + 3, TEXT + 256 * 3 + 3),
    "cross-attention": (IMAGE + TEXT + 10 * SQUARE + 512 * 3 + 3, TEXT + 256 * 3 + 3),
    "co-attention": (
        IMAGE + TEXT + 2 * (BLOCK + 2 * SQUARE + 2 * SQUARE + NORM) + 512 * 3 + 3,
        TEXT + BLOCK + 2 * SQUARE + 256 * 3 + 3,
    ),
    "merged-attention": (IMAGE + TEXT + BLOCK + 4 * SQUARE + 512 * 3 + 3, TEXT + BLOCK + 2 * SQUARE + 256 * 3 + 3),
    "gated": (IMAGE + TEXT + 1664 * 256 + 256 + 256 * 3 + 3, TEXT + 256 * 3 + 3),
    "bilinear": (IMAGE + TEXT + 2 * SQUARE + 256 * 3 + 3, TEXT + SQUARE + 256 * 3 + 3),
    "linear": (1664 * 3 + 3, 384 * 3 + 3),
    "late": (IMAGE + TEXT + 2 * (256 * 3 + 3), TEXT + 256 * 3 + 3),
}


@pytest.mark.parametrize("name", HEADS)
def test_parameters_are_counted_as_by_hand(name: str) -> None:
    widths = {"image": 1280, "text": 384}
    assert count_parameters(name, widths, 256, 3) == PARAMETERS[name][0]
    assert count_parameters(name, {"text": 384}, 256, 3) == PARAMETERS[name][1]


def sums(shape: HeadShape) -> nn.Module:
    """A head from outside: the modalities' units scaled by a layer and added."""

    def fuse(head: Any, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return sum(head.scales[m](x) for m, x in zip(head.towers, hidden.chunk(len(head.towers), dim=1), strict=True))

    scales = {modality: shape.linear(shape.D, shape.D) for modality in shape.widths}
    return shape.fusion(fuse, shape.D, scales=scales)


@pytest.fixture
def registered() -> Iterator[str]:
    """The name of a head from outside, in the registry for one test."""
    register_head("sums", HeadSpec(sums, D_multiple_of=4))
    yield "sums"
    del HEADS["sums"]


def test_a_registered_head_is_one_of_the_configurations_and_is_built_and_counted(registered: str) -> None:
    assert Config(head=registered, D=12).head == registered
    with pytest.raises(InputError, match="--D 10: --head sums needs a multiple of 4"):
        Config(head=registered, D=10)
    head = build_head(registered, R, WIDTHS, D, 3, dropout=RATE)
    names = [name for name, _ in head.named_children()]
    initialise(head, seeded(1, 2, 3), seeded(4, 5, 6))
    assert names == ["towers", "classifier", "scales"] and head(vectors32()).shape == (R, 3, B)
    assert count_parameters(registered, {"text": 4}, D, 3) == 5 * D + 2 * D + 3 * (D + 1) + D * (D + 1)


@pytest.mark.parametrize(("name", "message"), [("gated", "already"), ("", "letters"), ("two words", "letters")])
def test_names_that_are_taken_or_unfit_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register_head(name, HeadSpec(sums))
    assert HEADS["gated"].build is not sums


@pytest.mark.parametrize("name", HEADS)
def test_a_copy_of_a_head_has_its_own_layers(name: str) -> None:
    head = build_head(name, R, WIDTHS, D, 3, dropout=0.0).eval()
    initialise(head, seeded(1, 2, 3), seeded(4, 5, 6))
    before, copied = head(vectors32()), deepcopy(head)
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert torch.equal(head(vectors32()), before) and not copied(vectors32()).any()
    assert torch.equal(run_some(head, [2, 0], {m: x[[2, 0]] for m, x in vectors32().items()}), before[[2, 0]])


@pytest.mark.parametrize("name", HEADS)
def test_every_head_overfits_sixteen_samples(name: str) -> None:
    head = build_head(name, 2, {"image": 10, "text": 8}, D=32, classes=3, dropout=0.0)
    # 18 numbers a sample: enough for planes too to separate sixteen
    initialise(head, seeded(1, 2), seeded(3, 4))
    torch.manual_seed(0)
    inputs = {"image": torch.randn(2, 10, 16), "text": torch.randn(2, 8, 16)}
    labels = torch.randint(0, 3, (2, 16))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(inputs), labels).backward()
        optimizer.step()
    assert torch.equal(head(inputs).argmax(dim=1), labels)
