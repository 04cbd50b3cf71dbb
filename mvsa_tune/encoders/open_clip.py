"""Models of open_clip: CLIP's two towers, their raw output."""

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsa_tune.encoders.state_dict import IN_FOLDER, fill, identity_of, read_state_dict, weight_files
from mvsa_tune.encoders.towers import Encoder, PictureTower, TextTower, Tower
from mvsa_tune.encoders.transformers import clip_recipe, clip_weights
from mvsa_tune.encoders.weights import cached, hub_file
from mvsa_tune.errors import InputError, some

if TYPE_CHECKING:
    from torch import Tensor

# What weights were made with besides their architecture. The tensors do not tell: other values give other vectors.
RECIPE = ("quick_gelu", "mean", "std", "interpolation", "resize_mode")
UNUSED = ("logit_scale", "logit_bias")  # by the towers
CONFIGS = ("open_clip_config.json", "config.json", "preprocessor_config.json", "processor_config.json")
# In the state dict of OpenAI's package, and not in open_clip's.
OPENAI = ("input_resolution", "context_length", "vocab_size")


def open_clip_encoder(architecture: str, weights: str | Path, widths: Mapping[str, int]) -> Encoder:
    """Return the encoder of an architecture with published weights (their tag) or those of a file or folder."""

    def is_local() -> bool:
        if isinstance(weights, Path):
            return weights.exists()
        return cached(*published(architecture, weights)["location"]) is not None

    name = weights.name if isinstance(weights, Path) else weights
    return Encoder(widths, partial(load_open_clip, architecture, weights), f"open_clip {architecture} {name}", is_local)


def parse_open_clip(rest: str) -> Encoder:
    """Return the encoder of `ARCH:TAG_OR_PATH`; texts only where the tokenizer is CLIP's own."""
    import open_clip

    architecture, _, tag = rest.partition(":")
    if not tag:
        raise InputError(f"openclip:{rest}: write openclip:ARCH:TAG, openclip:ARCH:FILE or openclip:ARCH:FOLDER")
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise InputError(f"openclip:{architecture}: no such architecture; open_clip.list_models() lists them")
    if "hf_model_name" in config["text_cfg"]:
        raise InputError(
            f"openclip:{architecture}: its text tower is a model of transformers; only CLIP's own can be used"
        )
    modalities = ["image"] if "hf_tokenizer_name" in config["text_cfg"] else ["image", "text"]
    known = open_clip.list_pretrained_tags_by_model(architecture)
    is_path = tag not in known and (Path(tag).suffix or Path(tag).exists())
    widths = dict.fromkeys(modalities, int(config["embed_dim"]))
    return open_clip_encoder(architecture, Path(tag) if is_path else tag, widths)


def published(architecture: str, tag: str) -> dict[str, Any]:
    """Return what open_clip records of published weights, and their `location`: repository and file of the hub."""
    import open_clip

    config = open_clip.get_pretrained_cfg(architecture.removesuffix("-quickgelu"), tag)
    if not config or not config.get("hf_hub"):
        known = open_clip.list_pretrained_tags_by_model(architecture)
        raise InputError(f"openclip:{architecture}:{tag}: no such weights; known are {some(known) or 'none'}")
    repository, _, file = config["hf_hub"].rpartition("/")  # `owner/name/`, or `owner/name/file`
    return {**config, "location": (repository, file or "open_clip_model.safetensors")}


def recipe(
    architecture: str, path: Path, tensors: "Mapping[str, Tensor]", named: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return with which activation and preprocessing the weights of a file or folder were made: keys of `RECIPE`.

    A config beside them says it, or that they are OpenAI's, or the published weights that were `named`; else it is what
    all published weights of the architecture have in common.

    Raises:
        InputError: published weights differ, or a config cannot be read.
    """
    import open_clip

    if how := recipe_beside(path):
        return how
    if OPENAI[0] in tensors:
        return published("ViT-B-32", "openai")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if named or not tags:
        return named
    tag_of: dict[str, str] = {}
    for tag in tags:
        tag_of.setdefault(str(stated(published(architecture, tag))), tag)
    if len(tag_of) > 1:
        raise InputError(
            f"{path} does not say its activation and preprocessing, in which published weights of {architecture} "
            f"differ: name the ones it was made like, openclip:{architecture}:TAG ({' or '.join(tag_of.values())}), "
            "and give the file with --weights"
        )
    return published(architecture, tags[0])


def stated(how: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recipe says that is not open_clip's default."""
    return {key: how[key] for key in RECIPE if how.get(key)}


def recipe_beside(path: Path) -> dict[str, Any]:
    """Return the recipe that the configs of a folder tell, open_clip's or those of transformers; empty without one.

    A file of the name that its library gives is taken for that of its folder.
    """
    folder = path if path.is_dir() else path.parent
    if folder != path and not any(path.match(pattern) for pattern in IN_FOLDER):
        return {}
    if (file := folder / CONFIGS[0]).exists():
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
            how = {"quick_gelu": False, **config["model_cfg"], **config["preprocess_cfg"]}
            return {key: tuple(how[key]) if key in ("mean", "std") else how[key] for key in RECIPE if key in how}
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{file} cannot be read ({error}): fetch it again") from None
    is_theirs = (folder / "config.json").exists() and not weight_files(path)[0].name.startswith("open_clip_")
    return clip_recipe(folder) if is_theirs else {}


def load_open_clip(architecture: str, tag: str | Path, modality: str, weights: Path | None, device: Any) -> Tower:
    """Load a tower of CLIP; `tag` names published weights, or is the path of a file or folder."""
    import open_clip
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
    from torch import nn

    config = open_clip.get_model_config(architecture)
    origin = {} if isinstance(tag, Path) else published(architecture, tag)
    path = weights or (tag if isinstance(tag, Path) else hub_file(*origin["location"]))
    tensors = clip_weights(read_state_dict(path))
    how = recipe(architecture, path, tensors, origin) if weights or not origin else origin
    # Weights can be made with QuickGELU where the architecture of that name has GELU: same tensors, other numbers.
    quick = bool(config.get("quick_gelu") if how.get("quick_gelu") is None else how["quick_gelu"])
    logging.disable(logging.WARNING)  # a warning that the weights are random: they are loaded next
    try:
        model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False, quick_gelu=quick)
    finally:
        logging.disable(logging.NOTSET)
    if not hasattr(model, "positional_embedding"):  # its text tower is a module of its own
        tensors = convert_to_custom_text_state_dict(convert_state_dict(model, tensors))
    unused = {name: value for name, value in model.state_dict().items() if name in UNUSED}
    fill(model, {name: value for name, value in tensors.items() if name not in (*UNUSED, *OPENAI)} | unused, path)
    identity = identity_of(path, [*weight_files(path), *(path / name for name in CONFIGS if (path / name).exists())])
    activation = f", {'QuickGELU' if quick else 'GELU'}" if not origin or stated(how) != stated(origin) else ""

    if modality == "image":
        resize = PreprocessCfg(**merge_preprocess_dict(model.visual.preprocess_cfg, how))
        about = f"open_clip {resize.size} px, {resize.interpolation}, {resize.resize_mode}, mean {resize.mean}, std "
        transform = image_transform_v2(resize, is_train=False)
        about, crops = f"{about}{resize.std}{activation}", resize.resize_mode == "shortest"
        return PictureTower(model.visual, device, about, identity, transform, crops)

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
    about = f"CLIP tokens, at most {limit}{activation}"
    return TextTower(TextSide(), device, about, identity, tokenize, limit, width, pad_to_limit=True)
