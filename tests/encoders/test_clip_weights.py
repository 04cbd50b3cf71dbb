"""CLIP's weights in the forms that people have them in: each gives the vectors of the models they were made with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.images import open_picture
from mvsa_tune.encoders.open_clip import recipe, stated
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.errors import InputError
from tiny_models import TEXTS, load, vectors

Weights = dict[str, Tensor]
SIZE, LIMIT, WORDS = 64, 77, 49408
OPENAI_PREPROCESSING = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Random weights of a tiny CLIP under OpenAI's names; open_clip knows it as tiny-quick and tiny-gelu."""
    import open_clip

    folder = tmp_path_factory.mktemp("architectures")
    vision = {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": 32}
    text = {"context_length": LIMIT, "vocab_size": WORDS, "width": 64, "heads": 1, "layers": 2}
    for name, quick in (("tiny-quick", True), ("tiny-gelu", False)):
        config = {"embed_dim": 16, "quick_gelu": quick, "vision_cfg": vision, "text_cfg": text}
        (folder / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-quick")
    return {name: torch.randn_like(value) / 4 for name, value in model.state_dict().items()}


def transformer(weights: Weights, prefix: str, x: Tensor, mask: Tensor | None, quick: bool) -> Tensor:
    """The blocks of OpenAI's CLIP, `(n, L, width)` → the same, written out from its published definition."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}weight"].T + weights[f"{name}bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    for layer in range(2):
        block = f"{prefix}transformer.resblocks.{layer}"
        parts = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.in_proj_").chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (-1, 64)).transpose(1, 2) for part in parts)  # heads are 64 wide
        mixed = F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)
        x = x + linear(mixed, f"{block}.attn.out_proj.")
        wide = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc.")
        x = x + linear(wide * (1.702 * wide).sigmoid() if quick else F.gelu(wide), f"{block}.mlp.c_proj.")
    return norm(x, f"{prefix}ln_post" if prefix else "ln_final")


def see(weights: Weights, pixels: Tensor, quick: bool = True) -> Tensor:
    patches = F.conv2d(pixels, weights["visual.conv1.weight"], stride=32).flatten(2).mT
    first = weights["visual.class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat([first, patches], dim=1) + weights["visual.positional_embedding"]
    x = F.layer_norm(x, x.shape[-1:], weights["visual.ln_pre.weight"], weights["visual.ln_pre.bias"])
    return transformer(weights, "visual.", x, None, quick)[:, 0] @ weights["visual.proj"]


def read(weights: Weights, ids: Tensor, quick: bool = True) -> Tensor:
    x = weights["token_embedding.weight"][ids] + weights["positional_embedding"]
    mask = torch.full((LIMIT, LIMIT), -torch.inf).triu(1)
    x = transformer(weights, "", x, mask, quick)
    return x[torch.arange(len(ids)), ids.argmax(dim=1)] @ weights["text_projection"]


def pixels_of(pictures: list[Image.Image], size: int = SIZE, **how: Any) -> Tensor:
    """OpenAI's preprocessing, or one with another mean and standard deviation."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    steps = [Resize(size, InterpolationMode.BICUBIC), CenterCrop(size), ToTensor()]
    transform = Compose([*steps, Normalize(**(OPENAI_PREPROCESSING | how))])
    return torch.stack([transform(picture) for picture in pictures])


def tokens_of(texts: list[str]) -> Tensor:
    import open_clip

    return open_clip.get_tokenizer("ViT-B-32")(texts)


def check(name: str, weights: Weights, pictures: list[Image.Image], quick: bool = True, **how: Any) -> None:
    """Compare both towers of an encoder with the definition."""
    weights = {name: value.float() for name, value in weights.items()}
    images, texts = see(weights, pixels_of(pictures, **how), quick), read(weights, tokens_of(TEXTS), quick)
    for tower, items, theirs in ((load(name, "image"), pictures, images), (load(name, "text"), TEXTS, texts)):
        ours = vectors(tower, items)
        assert torch.cosine_similarity(ours, theirs).min() >= 0.9999
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        assert f", {'QuickGELU' if quick else 'GELU'}" in tower.preprocessing


class Scripted(torch.nn.Module):
    """A module that scripts to an archive with given tensors: nested modules, and code that must not be run."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        for name in {name.partition(".")[0] for name in weights if "." in name}:
            inner = {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}
            self.add_module(name, Scripted(inner))
        for name, value in weights.items():
            if "." not in name:
                self.register_buffer(name, value)

    def forward(self) -> int:
        raise RuntimeError("this code must not run")


def archive(weights: Weights, path: Path) -> Path:
    """OpenAI's own form: a TorchScript archive, half precision, and three numbers beside the weights."""
    numbers = {"input_resolution": SIZE, "context_length": LIMIT, "vocab_size": WORDS}
    scripted = Scripted({k: v.half() for k, v in weights.items()} | {k: torch.tensor(v) for k, v in numbers.items()})
    torch.jit.script(scripted).save(path)
    return path


def saved(weights: Weights, path: Path) -> Path:
    torch.save(weights, path)
    return path


def archives_state_dict(weights: Weights, path: Path) -> Path:
    scripted = torch.jit.load(archive(weights, path))
    return saved(dict(scripted.state_dict()), path)


FORMS: dict[str, tuple[str, Callable[[Weights, Path], Path]]] = {
    "OpenAI's archive": ("tiny-gelu", archive),
    "its state dict": ("tiny-gelu", archives_state_dict),
    "open_clip's .bin": ("tiny-quick", lambda w, path: saved(w | {"logit_scale": torch.ones(1)}, path)),
    "half precision, of DataParallel": (
        "tiny-quick",
        lambda w, path: saved({"state_dict": {f"module.{k}": v.half() for k, v in w.items()}, "epoch": 3}, path),
    ),
    "bfloat16, of a wrapped model": (
        "tiny-quick",
        lambda w, path: saved({"model": {f"module.model.{k}": v.bfloat16() for k, v in w.items()}}, path),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_in_any_form_give_the_vectors_of_openais_definition(
    form: str, tiny: Weights, tmp_path: Path, photos: list[Image.Image]
) -> None:
    architecture, save = FORMS[form]
    path = save(tiny, tmp_path / "ViT-B-32.pt")
    rounded = {"half precision, of DataParallel": torch.half, "bfloat16, of a wrapped model": torch.bfloat16}
    number_format = rounded.get(form, torch.half if architecture == "tiny-gelu" else torch.float)
    check(f"openclip:{architecture}:{path}", {k: v.to(number_format) for k, v in tiny.items()}, photos)


@pytest.mark.parametrize(("quick", "shards"), [(True, False), (False, True)])
def test_a_clip_folder_of_transformers_gives_what_transformers_gives(
    quick: bool, shards: bool, tiny: Weights, tmp_path: Path, photos: list[Image.Image]
) -> None:
    import transformers

    small = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    small["hidden_act"] = "quick_gelu" if quick else "gelu"
    config = transformers.CLIPConfig(
        text_config=small | {"vocab_size": WORDS, "eos_token_id": WORDS - 1},
        vision_config=small | {"image_size": SIZE, "patch_size": 32},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.25)
    folder = tmp_path / "clip-vit-base-patch32"
    model.save_pretrained(folder, max_shard_size="5MB" if shards else "1GB")
    assert (len(list(folder.glob("*.safetensors"))) > 1) == shards
    half = (0.5, 0.5, 0.5)
    size = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    transformers.CLIPImageProcessor(**size, image_mean=half, image_std=half).save_pretrained(folder)
    with torch.no_grad():
        images = model.visual_projection(model.vision_model(pixels_of(photos, mean=half, std=half)).pooler_output)
        texts = model.text_projection(model.text_model(tokens_of(TEXTS)).pooler_output)
    name = f"openclip:tiny-gelu:{folder if shards else folder / 'model.safetensors'}"
    for modality, items, theirs in (("image", photos, images), ("text", TEXTS, texts)):
        tower = load(name, modality)
        torch.testing.assert_close(vectors(tower, items), theirs, rtol=1e-3, atol=1e-3)
        assert f", {'QuickGELU' if quick else 'GELU'}" in tower.preprocessing
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="not a complete transformers folder") as caught:
        load(name, "image")
    assert "\n" not in str(caught.value)


def test_a_folder_of_open_clip_says_activation_and_preprocessing(
    tiny: Weights, tmp_path: Path, photos: list[Image.Image]
) -> None:
    how = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    config = {"model_cfg": {"embed_dim": 16, "quick_gelu": True}, "preprocess_cfg": how}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    path = saved(tiny, tmp_path / "open_clip_pytorch_model.bin")
    for where in (path, tmp_path):
        check(f"openclip:tiny-gelu:{where}", tiny, photos, **how)
    tower = load(f"openclip:tiny-gelu:{tmp_path}", "image")
    assert "mean (0.1, 0.2, 0.3), std (0.5, 0.6, 0.7), QuickGELU" in tower.preprocessing
    path.rename(tmp_path / "mine.bin")  # a name that says nothing of the folder
    check(f"openclip:tiny-gelu:{tmp_path / 'mine.bin'}", tiny, photos, quick=False)
    (tmp_path / "open_clip_pytorch_model.bin").touch()
    for damaged in ("{", "[]", '{"model_cfg": {}, "preprocess_cfg": {"mean": 3}}'):
        (tmp_path / "open_clip_config.json").write_text(damaged)
        with pytest.raises(InputError, match=r"open_clip_config.json cannot be read .*: fetch it again"):
            recipe("tiny-gelu", tmp_path, {}, {})
    (tmp_path / "open_clip_config.json").unlink()
    (tmp_path / "config.json").write_text('{"architecture": "of timm"}')
    assert not recipe("tiny-gelu", tmp_path, {}, {})


def test_a_file_alone_has_the_recipe_that_all_published_weights_share_or_must_be_given_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    half = (0.5, 0.5, 0.5)
    siglip = {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "squash"}
    assert stated(recipe("ViT-B-16-SigLIP", file, {}, {})) == siglip
    openai = {"quick_gelu": True, **OPENAI_PREPROCESSING, "interpolation": "bicubic", "resize_mode": "shortest"}
    assert stated(recipe("ViT-B-32-quickgelu", file, {}, {})) == openai
    assert stated(recipe("ViT-L-14", file, {"input_resolution": torch.tensor(224)}, siglip)) == openai
    assert recipe("ViT-B-32", file, {}, siglip) == siglip  # that of the published weights that were named
    with pytest.raises(
        InputError, match=r"ViT-B-32 differ: .* openclip:ViT-B-32:TAG \(openai or laion2b_e16\), and .*"
    ):
        recipe("ViT-B-32", file, {}, {})


def test_a_siglip_folder_of_transformers_is_named(tmp_path: Path) -> None:
    from transformers import SiglipConfig

    SiglipConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match="of kind siglip, not clip"):
        recipe("ViT-B-32", tmp_path, {}, {})


def test_a_tag_is_no_path_even_where_a_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openai").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_encoder("openclip:ViT-B-32:openai").source == "open_clip ViT-B-32 openai"
    assert find_encoder("openclip:ViT-B-32:mine").is_local()


@pytest.mark.long
def test_both_towers_are_those_of_openais_package(real: Path, tmp_path: Path) -> None:
    clip = pytest.importorskip("clip", reason="OpenAI's package clip is not installed")
    torch.manual_seed(0)
    model = clip.model.CLIP(512, 224, 12, 768, 32, LIMIT, WORDS, 512, 8, 12).eval()  # ViT-B/32
    for name in ("input_resolution", "context_length", "vocab_size"):
        (model.visual if name == "input_resolution" else model).__dict__.pop(name)
        model.register_buffer(name, torch.tensor({"input_resolution": 224, "context_length": LIMIT}.get(name, WORDS)))
    clip.model.convert_weights(model)
    inputs = {"encode_image": torch.zeros(1, 3, 224, 224).half(), "encode_text": torch.zeros(1, LIMIT).long()}
    torch.jit.trace_module(model, inputs, check_trace=False).save(tmp_path / "ViT-B-32.pt")
    theirs, transform = clip.load(str(tmp_path / "ViT-B-32.pt"), device="cpu")
    samples = read_dataset(real).samples[:400:20]
    pictures, texts = [open_picture(sample.picture) for sample in samples], [sample.text for sample in samples]
    with torch.no_grad():
        images = theirs.encode_image(torch.stack([transform(picture) for picture in pictures]))
        tokens = theirs.encode_text(clip.tokenize(texts, truncate=True))
    for modality, items, expected in (("image", pictures, images), ("text", texts, tokens)):
        tower = load("clip-vit-b-32", modality, tmp_path / "ViT-B-32.pt")
        ours = tower.encode([tower.prepare(item) for item in items])
        assert torch.cosine_similarity(ours, expected).min() >= 0.9999
