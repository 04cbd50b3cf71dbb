"""Models of transformers: saved tiny ones give what the library gives."""

from itertools import product
from pathlib import Path

import pytest
import torch
from PIL import Image

from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.errors import InputError
from tiny_models import TEXTS, load, text_model, vectors


@pytest.mark.parametrize(  # DeBERTa has no pooler
    ("kind", "pooling"), [*product(["Roberta", "DebertaV2"], ["mean", "cls"]), ("Roberta", "pooler")]
)
def test_a_transformers_text_model_gives_what_the_library_gives(tmp_path: Path, kind: str, pooling: str) -> None:
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
        assert find_encoder(f"hf:{tmp_path / name}").widths == widths
    CLIPConfig().save_pretrained(tmp_path / "both")
    T5Config().save_pretrained(tmp_path / "neither")
    for name, kind in (("both", "clip"), ("neither", "t5")):
        with pytest.raises(InputError, match=f"{kind} is not an encoder of pictures alone or of texts alone"):
            find_encoder(f"hf:{tmp_path / name}")
    with pytest.raises(InputError, match="no such folder"):
        find_encoder(f"hf:{tmp_path / 'nothing'}")


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


def test_a_transformers_vision_model_gives_what_the_library_gives(tmp_path: Path, photos: list[Image.Image]) -> None:
    from transformers import AutoImageProcessor, ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    model = ViTModel(ViTConfig(image_size=64, patch_size=16, **small)).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    assert find_encoder(f"hf:{tmp_path}").widths == {"image": 16}
    ours = vectors(load(f"hf:{tmp_path}", "image"), photos)
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(photos, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


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
    with pytest.raises(InputError, match=r"not complete: they lack encoder\.layer\.1"):
        load(f"hf:{tmp_path}@mean", "text")
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="not a complete transformers folder"):
        load(f"hf:{tmp_path}@mean", "text")


def test_a_folder_cloned_without_git_lfs_says_so(tmp_path: Path) -> None:
    text_model("Roberta", tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match=r"model\.safetensors is a Git LFS pointer.*git lfs pull"):
        load(f"hf:{tmp_path}", "text")
