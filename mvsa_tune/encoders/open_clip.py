"""Models of open_clip: CLIP's two towers, their raw output."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mvsa_tune.encoders.towers import Encoder, PictureTower, TextTower, Tower
from mvsa_tune.encoders.weights import cached, fill, hub_file
from mvsa_tune.errors import InputError, some


def open_clip_encoder(architecture: str, tag: str, widths: Mapping[str, int]) -> Encoder:
    """Return the encoder of an architecture with published weights (their tag) or those of a file."""
    file = Path(tag) if Path(tag).suffix else None
    return Encoder(
        widths,
        partial(load_open_clip, architecture, file or tag),
        f"open_clip {architecture} {file.name if file else tag}",
        file.exists if file else lambda: cached(*published(architecture, tag)["location"]) is not None,
    )


def parse_open_clip(rest: str) -> Encoder:
    """Return the encoder of `ARCH:TAG_OR_FILE`; texts only where the tokenizer is CLIP's own."""
    import open_clip

    architecture, _, tag = rest.partition(":")
    if not tag:
        raise InputError(f"openclip:{rest}: write openclip:ARCH:TAG_OR_FILE")
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise InputError(f"openclip:{architecture}: no such architecture; open_clip.list_models() lists them")
    if "hf_model_name" in config["text_cfg"]:
        raise InputError(
            f"openclip:{architecture}: its text tower is a model of transformers; only CLIP's own can be used"
        )
    modalities = ["image"] if "hf_tokenizer_name" in config["text_cfg"] else ["image", "text"]
    return open_clip_encoder(architecture, tag, dict.fromkeys(modalities, int(config["embed_dim"])))


def published(architecture: str, tag: str) -> dict[str, Any]:
    """Return what open_clip records of published weights, and their `location`: repository and file of the hub."""
    import open_clip

    config = open_clip.get_pretrained_cfg(architecture.removesuffix("-quickgelu"), tag)
    if not config or not config.get("hf_hub"):
        known = open_clip.list_pretrained_tags_by_model(architecture)
        raise InputError(f"openclip:{architecture}:{tag}: no such weights; known are {some(known) or 'none'}")
    repository, _, file = config["hf_hub"].rpartition("/")  # `owner/name/`, or `owner/name/file`
    return {**config, "location": (repository, file or "open_clip_model.safetensors")}


def load_open_clip(architecture: str, tag: str | Path, modality: str, weights: Path | None, device: Any) -> Tower:
    """Load a tower of CLIP; `tag` names published weights, or is the path of a file."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
    from torch import nn

    config = open_clip.get_model_config(architecture)
    origin = {} if isinstance(tag, Path) else published(architecture, tag)
    path = weights or (tag if isinstance(tag, Path) else hub_file(*origin["location"]))
    # Weights can be made with QuickGELU where the architecture of that name has GELU: same tensors, other numbers.
    quick = bool(origin.get("quick_gelu"))
    logging.disable(logging.WARNING)  # a warning that the weights are random: they are loaded next
    try:
        model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False, force_quick_gelu=quick)
    finally:
        logging.disable(logging.NOTSET)
    identity = fill(model, path)

    if modality == "image":
        how = PreprocessCfg(**merge_preprocess_dict(model.visual.preprocess_cfg, origin))
        about = f"open_clip {how.size} px, {how.interpolation}, {how.resize_mode}, mean {how.mean}, std {how.std}"
        return PictureTower(model.visual, device, about, identity, image_transform_v2(how, is_train=False))

    class TextSide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = model
            del self.clip.visual

        def forward(self, ids: Any, mask: Any) -> Any:  # CLIP reads a text up to its end token, whatever follows
            return self.clip.encode_text(ids)

    tokenizer = open_clip.get_tokenizer(architecture)

    def tokenize(text: str) -> list[int]:
        return [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]

    limit, width = config["text_cfg"].get("context_length", 77), config["embed_dim"]
    about = f"CLIP tokens, at most {limit}"
    return TextTower(TextSide(), device, about, identity, tokenize, limit, width, pad_to_limit=True)
