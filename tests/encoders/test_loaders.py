"""Models of open_clip, torchvision and timm: tiny or randomly initialised ones give what the library gives."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mvsa_tune.encoders.registry import ENCODERS, find_encoder
from mvsa_tune.errors import InputError
from tiny_models import CPU, TEXTS, load, vectors


@pytest.fixture
def tiny_clip(tmp_path: Path) -> tuple[Any, Path]:
    """A tiny architecture of open_clip, with QuickGELU, and its weights in a file."""
    import open_clip
    from safetensors.torch import save_file

    config = {
        "embed_dim": 12,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip").eval()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "tiny.safetensors")
    return model, tmp_path / "tiny.safetensors"


def test_open_clip_gives_both_towers_raw(tiny_clip: tuple[Any, Path], photos: list[Image.Image]) -> None:
    import open_clip

    model, file = tiny_clip
    name = f"openclip:tiny-clip:{file}"
    assert find_encoder(name).widths == {"image": 12, "text": 12}
    transform = open_clip.image_transform(64, is_train=False)
    with torch.no_grad():
        pictures = model.encode_image(torch.stack([transform(photo) for photo in photos]))
        texts = model.encode_text(open_clip.get_tokenizer("tiny-clip")(TEXTS))
    torch.testing.assert_close(vectors(load(name, "image"), photos), pictures, rtol=1e-5, atol=1e-5)
    ours = load(name, "text")
    torch.testing.assert_close(vectors(ours, TEXTS), texts, rtol=1e-5, atol=1e-5)
    assert [ours.is_truncated(ours.prepare(text)) for text in TEXTS] == [False, False, False, True]
    assert not torch.allclose(pictures.norm(dim=1), torch.ones(len(photos)))  # raw, not normalised


@pytest.mark.long
def test_every_text_of_the_real_set_gives_openais_tokens(tiny_clip: tuple[Any, Path], real: Path) -> None:
    """The digest is of what `clip.tokenize(texts, truncate=True)` of OpenAI's package gives, little-endian int64."""
    lists = ((real / name).read_text().splitlines()[1:] for name in ("train.txt", "test_without_label.txt"))
    files = [real / "data" / f"{line.partition(',')[0]}.txt" for lines in lists for line in lines]
    texts = [file.read_bytes().decode("utf-8", "ignore").strip() for file in files]
    tower = load(f"openclip:tiny-clip:{tiny_clip[1]}", "text")
    tokens, _ = tower.collate([tower.prepare(text) for text in texts])
    assert tokens.shape == (4511, 77)
    digest = hashlib.sha256(tokens.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "88eca9bda071e3256fa5f2a085fe5f5905616131f1c790e9d176d3becd892c90"


@pytest.mark.parametrize("name", ["clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14"])
def test_clip_presets_have_openais_quick_gelu(name: str) -> None:
    import open_clip

    architecture = ENCODERS[name].loader.args[0]  # type: ignore[attr-defined]
    config = open_clip.get_model_config(architecture)
    assert config["quick_gelu"] and config["embed_dim"] == ENCODERS[name].widths["image"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.long
def test_torchvision_gives_its_thousand_outputs_or_what_goes_into_them(
    tmp_path: Path, photos: list[Image.Image], suffix: str
) -> None:
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    file = tmp_path / f"weights{suffix}"
    save_file(model.state_dict(), file) if suffix == ".safetensors" else torch.save(model.state_dict(), file)
    transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    with torch.no_grad():
        pixels = torch.stack([transform(photo) for photo in photos])
        theirs = model(pixels)
        model.fc = torch.nn.Identity()
        pooled = model(pixels)
    for name, expected in (("resnet50", theirs), ("resnet50-pooled", pooled), ("torchvision:resnet50", theirs)):
        tower = load(name, "image", file)
        prepared = [tower.prepare(photo) for photo in photos]
        torch.testing.assert_close(tower.encode(prepared), expected, rtol=1e-4, atol=1e-4)
        assert tower.width == expected.shape[1] == (ENCODERS[name].widths["image"] if name in ENCODERS else 1000)


def test_timm_gives_its_pooled_features(tmp_path: Path, photos: list[Image.Image]) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("resnet10t").eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.no_grad():
        features = model.forward_features(torch.stack([transform(photo) for photo in photos]))
        theirs = model.forward_head(features, pre_logits=True)
    tower = load("timm:resnet10t", "image", tmp_path / "model.safetensors")
    torch.testing.assert_close(tower.encode([tower.prepare(photo) for photo in photos]), theirs, rtol=1e-4, atol=1e-4)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, tiny_clip: tuple[Any, Path]) -> None:
    import torchvision

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "other.pth")
    (tmp_path / "cut.safetensors").write_bytes(tiny_clip[1].read_bytes()[:1000])
    for file, told in (
        ("trap.pth", "nothing is unpickled"),
        ("other.pth", "does not fit|other shapes"),
        ("cut.safetensors", "not a file of plain tensors"),
        ("none.pth", "cannot read"),
    ):
        with pytest.raises(InputError, match=told) as caught:
            load("mobilenet_v2", "image", tmp_path / file)
        assert file in str(caught.value)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(InputError, match="takes a folder"):
        load("minilm", "text", tmp_path / "other.pth")


def test_a_tag_of_open_clip_brings_its_activation_and_its_preprocessing(
    tiny_clip: tuple[Any, Path], photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    from mvsa_tune.encoders import open_clip as loader

    _, file = tiny_clip
    config = json.loads((file.parent / "tiny-clip.json").read_text())
    (file.parent / "tiny-gelu.json").write_text(json.dumps(config | {"quick_gelu": False}))
    open_clip.add_model_config(file.parent / "tiny-gelu.json")
    tag = {
        "quick_gelu": True,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "resize_mode": "squash",
        "hf_hub": "o/n/",
    }
    monkeypatch.setattr(loader, "published", lambda architecture, name: tag)
    tower = loader.load_open_clip("tiny-gelu", "tag", "image", file, CPU)
    model, _ = tiny_clip
    how = open_clip.transform.PreprocessCfg(size=64, mean=tag["mean"], std=tag["std"], resize_mode="squash")
    transform = open_clip.transform.image_transform_v2(how, is_train=False)
    with torch.no_grad():
        theirs = model.encode_image(torch.stack([transform(photo) for photo in photos]))
    torch.testing.assert_close(vectors(tower, photos), theirs, rtol=1e-5, atol=1e-5)
    assert "squash" in tower.preprocessing
