"""Models of pictures: torchvision's classifiers and timm's pooled features."""

from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from mvsa_tune.encoders.state_dict import load_weights
from mvsa_tune.encoders.towers import Encoder, PictureTower, Tower
from mvsa_tune.encoders.weights import ANSWER_SECONDS, cached, fetch, hub_file
from mvsa_tune.errors import InputError, some

TIMM_FILE = "model.safetensors"


def torchvision_encoder(name: str, width: int, cut: str = "") -> Encoder:
    """Return the encoder of a torchvision classifier: its output, or the input of its last layer, named `cut`."""
    load = partial(_load_torchvision, name, cut)
    return Encoder({"image": width}, load, f"torchvision {name}", lambda: torchvision_file(name).exists())


def parse_torchvision(name: str) -> Encoder:
    """Return the encoder of a torchvision classifier's output; InputError if there is no such model."""
    import torchvision

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise InputError(f"torchvision:{name}: no such model; torchvision.models.list_models() lists them")
    return torchvision_encoder(name, len(_torchvision_weights(name).meta["categories"]))


def _torchvision_weights(name: str) -> Any:
    """Return the first version of a model's ImageNet weights, the reference's; its default ones if it has no such."""
    import torchvision

    published = torchvision.models.get_model_weights(name)
    return published.IMAGENET1K_V1 if "IMAGENET1K_V1" in published.__members__ else published.DEFAULT


def torchvision_file(name: str) -> Path:
    """Return the path of a model's published weights in torch's cache on this machine."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_torchvision_weights(name).url).name


def _load_torchvision(name: str, cut: str, modality: str, weights: Path | None, device: Any) -> Tower:
    import torch
    import torchvision

    # torchvision itself switches this on with the published weights of these two.
    options = {"transform_input": True, "init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    model = torchvision.models.get_model(name, **options)
    published = _torchvision_weights(name)
    path = weights or torchvision_file(name)
    if not weights and not path.exists():
        url = published.url
        fetch(
            path.name,
            url,
            lambda: urlopen(Request(url, method="HEAD"), timeout=ANSWER_SECONDS).close(),
            lambda: torch.hub.load_state_dict_from_url(url, weights_only=True, progress=False, check_hash=True),
        )
    identity = load_weights(model, path)
    if cut:
        setattr(model, cut, torch.nn.Identity())
    transform = published.transforms()
    sizes = f"Resize({transform.resize_size[0]}), CenterCrop({transform.crop_size[0]})"
    return PictureTower(model, device, f"{sizes}, ImageNet mean and std", identity, transform, crops=True)


def timm_encoder(name: str) -> Encoder:
    """Return the encoder of a timm model's pooled features; InputError if there is no such model."""
    load = partial(_load_timm, name)
    return Encoder({"image": _timm_width(name)}, load, f"timm {name}", lambda: cached(*timm_location(name)) is not None)


@cache
def _timm_width(name: str) -> int:
    """Return the number of pooled features; 0 where only loading tells."""
    import timm
    import torch

    if not timm.is_model(name):
        raise InputError(f"timm:{name}: no such model; timm.list_models() lists them")
    try:
        with torch.device("meta"):  # shapes alone: no memory, no weights
            model: Any = timm.create_model(name, num_classes=0).eval()
            return int(model(torch.empty(1, *model.pretrained_cfg["input_size"])).shape[1])
    except RuntimeError:  # its construction reads values, and there are none on the meta device
        return 0


def timm_location(name: str) -> tuple[str, str]:
    """Return repository and file of a model's weights; its name ends in a tag, timm's choice by default."""
    import timm

    return str(timm.get_pretrained_cfg(name).hf_hub_id or f"timm/{name}"), TIMM_FILE  # type: ignore[union-attr]


def _unlike_tags(name: str) -> list[str]:
    """Return one of a timm model's published weights for each preprocessing, `NAME.TAG`."""
    import timm
    from timm.data import resolve_data_config  # type: ignore[attr-defined]

    of_recipe: dict[str, str] = {}
    for tag in timm.list_pretrained(f"{name}.*"):
        published: Any = timm.get_pretrained_cfg(tag)
        of_recipe.setdefault(str(resolve_data_config({}, pretrained_cfg=published.to_dict())), tag)
    return list(of_recipe.values())


def _load_timm(name: str, modality: str, weights: Path | None, device: Any) -> Tower:
    import timm
    from timm.data import create_transform, resolve_data_config  # type: ignore[attr-defined]

    if weights and "." not in name and len(tags := _unlike_tags(name)) > 1:
        raise InputError(
            f"{weights} does not say its preprocessing, in which published weights of {name} differ: name the ones it "
            f"was made like, timm:{some(tags, 3)}"
        )
    model: Any = timm.create_model(name, num_classes=0)
    identity = load_weights(model, weights or hub_file(*timm_location(name)), extra=True)  # they have a classifier, too
    config = resolve_data_config({}, model=model)
    about = f"timm {config['input_size'][-1]} px, {config['interpolation']}, crop {config['crop_pct']}"
    transform: Any = create_transform(**config, is_training=False)
    return PictureTower(model, device, about, identity, transform, crops=config["crop_mode"] == "center")
