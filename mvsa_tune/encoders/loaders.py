"""One loader for each library of encoders: name, modality, weights and device → tower; `from_transformers.py` has another."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

from mvsa_tune.encoders.towers import PictureTower, TextTower, Tower
from mvsa_tune.encoders.weights import cached, fetching, fill, hub_file, reachable, read_state_dict
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import sha256_of

OPEN_CLIP_FILE = "open_clip_model.safetensors"


def _published(architecture: str, tag: str) -> dict[str, Any]:
    """What open_clip says of published weights: where they are, and the activation and preprocessing they were made with."""
    import open_clip

    published = open_clip.get_pretrained_cfg(architecture.removesuffix("-quickgelu"), tag)
    if not published or not published.get("hf_hub"):
        known = open_clip.list_pretrained_tags_by_model(architecture)
        raise InputError(f"openclip:{architecture}:{tag}: no such weights; known are {some(known) or 'none'}")
    return dict(published)


def _open_clip_place(architecture: str, tag: str) -> tuple[str, str]:
    """Repository and file: open_clip writes `owner/name/`, or `owner/name/file`."""
    repository, _, file = _published(architecture, tag)["hf_hub"].rpartition("/")
    return repository, file or OPEN_CLIP_FILE


def has_open_clip(architecture: str, tag: str) -> bool:
    """Whether published weights are in the hub's cache on this machine."""
    return cached(*_open_clip_place(architecture, tag)) is not None


def load_open_clip(architecture: str, tag: str, modality: str, weights: Path | None, device: Any) -> Tower:
    """A tower of CLIP, its raw output."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
    from torch import nn

    config = open_clip.get_model_config(architecture)
    made_with = _published(architecture, tag) if tag else {}
    path = weights or hub_file(*_open_clip_place(architecture, tag))
    # A tag can ask for QuickGELU where the architecture of that name has GELU: same tensors, other numbers.
    quick = bool(made_with.get("quick_gelu"))
    logging.disable(
        logging.WARNING
    )  # it would say that the weights are random; they are filled next, or it is an error
    try:
        model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False, force_quick_gelu=quick)
    finally:
        logging.disable(logging.NOTSET)
    identity = fill(model, path)

    if modality == "image":
        how = PreprocessCfg(**merge_preprocess_dict(model.visual.preprocess_cfg, made_with))
        transform = image_transform_v2(how, is_train=False)
        about = f"open_clip {how.size} px, {how.interpolation}, {how.resize_mode}, mean {how.mean}, std {how.std}"
        return PictureTower(model.visual, transform, about, identity, device)

    class TextSide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = model
            del self.clip.visual

        def forward(self, ids: Any, mask: Any) -> Any:  # CLIP reads its text up to the end token, whatever follows
            return self.clip.encode_text(ids)

    tokenizer = open_clip.get_tokenizer(architecture)
    limit = config["text_cfg"].get("context_length", 77)

    def tokens(text: str) -> list[int]:
        return [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]

    described = (f"CLIP tokens, at most {limit}", identity)
    tower = TextTower(TextSide().eval().to(device), tokens, limit, config["embed_dim"], described, device)
    tower.pad_to_limit = True
    return tower


def open_clip_widths(architecture: str) -> dict[str, int]:
    """Lengths of the vectors of one of open_clip's architectures; texts only where the tokenizer is CLIP's own."""
    import open_clip

    config = open_clip.get_model_config(architecture)
    if config is None:
        raise InputError(f"openclip:{architecture}: no such architecture; open_clip.list_models() names them")
    if "hf_model_name" in config["text_cfg"]:
        raise InputError(f"openclip:{architecture}: its text tower is a transformers model; this reads CLIP's own only")
    modalities = ["image"] if "hf_tokenizer_name" in config["text_cfg"] else ["image", "text"]
    return dict.fromkeys(modalities, int(config["embed_dim"]))


def torchvision_width(name: str) -> int:
    """Outputs of one of torchvision's classifiers; InputError if it has none of this name."""
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise InputError(f"torchvision:{name}: no such model; torchvision.models.list_models() names them")
    return len(_torchvision_weights(name).meta["categories"])


def _torchvision_weights(name: str) -> Any:
    """The reference's ImageNet weights, version 1, where a model has them; else its default ones."""
    import torchvision

    published = torchvision.models.get_model_weights(name)
    return published.IMAGENET1K_V1 if "IMAGENET1K_V1" in published.__members__ else published.DEFAULT


def _torchvision_file(name: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_torchvision_weights(name).url).name


def has_torchvision(name: str) -> bool:
    """Whether the published weights are in torch's cache on this machine."""
    return _torchvision_file(name).exists()


def load_torchvision(name: str, cut: str, modality: str, weights: Path | None, device: Any) -> Tower:
    """A torchvision classifier: its output, or with `cut` what goes into that last layer (averaged over the picture)."""
    import torch
    import torchvision

    # What torchvision itself switches on with the published weights of these two.
    options = {"transform_input": True, "init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    model = torchvision.models.get_model(name, **options)
    chosen = _torchvision_weights(name)
    transform = chosen.transforms()
    path = weights or _torchvision_file(name)
    if not path.exists() and weights is None:
        if not reachable(chosen.url):
            raise InputError(
                f"no weights: {path.name} is not in {path.parent}, and its host cannot be reached: fetch it elsewhere and give "
                "its path with --weights PATH"
            )
        with fetching(chosen.url):
            torch.hub.load_state_dict_from_url(chosen.url, weights_only=True, progress=False, check_hash=True)
    identity = fill(model, path)
    if cut:
        setattr(model, cut, torch.nn.Identity())
    crop, resize = transform.crop_size[0], transform.resize_size[0]
    about = f"Resize({resize}), CenterCrop({crop}), ImageNet mean and std"
    return PictureTower(model, transform, about, identity, device)


TIMM_FILE = "model.safetensors"


@cache
def timm_width(name: str) -> int:
    """Length of a timm model's pooled features, 0 where only loading tells; InputError if timm has none of this name."""
    import timm
    import torch

    if not timm.is_model(name):
        raise InputError(f"timm:{name}: no such model; timm.list_models() names them")
    try:
        with torch.device("meta"):  # shapes alone: no memory, no weights
            model: Any = timm.create_model(name, num_classes=0).eval()
            return int(model(torch.empty(1, *model.pretrained_cfg["input_size"])).shape[1])
    except RuntimeError:  # its construction reads values, which the meta device has none of
        return 0


def _timm_repository(name: str) -> str:
    """The hub's name for its weights, which ends in the tag of the default ones where `name` has none."""
    import timm

    return str(timm.get_pretrained_cfg(name).hf_hub_id or f"timm/{name}")  # type: ignore[union-attr]


def has_timm(name: str) -> bool:
    """Whether its weights are in the hub's cache on this machine."""
    return cached(_timm_repository(name), TIMM_FILE) is not None


def load_timm(name: str, modality: str, weights: Path | None, device: Any) -> Tower:
    """A timm model, its pooled features."""
    import timm
    from timm.data import create_transform, resolve_data_config  # type: ignore[attr-defined]

    model: Any = timm.create_model(name, num_classes=0)
    path = weights or hub_file(_timm_repository(name), TIMM_FILE)
    kept = set(model.state_dict())
    loaded = {key: value for key, value in read_state_dict(path).items() if key in kept}
    missing = sorted(kept - set(loaded))
    if missing:
        raise InputError(f"--weights {path} does not fit timm's {name}: it lacks {some(missing, 2)}")
    try:
        model.load_state_dict(loaded)
    except RuntimeError as error:
        raise InputError(f"--weights {path} has other shapes: {str(error).splitlines()[1].strip()}") from None
    config = resolve_data_config({}, model=model)
    transform = create_transform(**config, is_training=False)
    about = f"timm {config['input_size'][-1]} px, {config['interpolation']}, crop {config['crop_pct']}"
    return PictureTower(model, transform, about, f"{path.name} sha256:{sha256_of(path)}", device)
