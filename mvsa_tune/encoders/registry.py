"""Name → what an encoder is and how to load it. Adding one is one entry in `ENCODERS`; open names stand for the rest.

Open names: `openclip:ARCH:TAG_OR_FILE`, `hf:ID_OR_FOLDER` (`@cls`, `@mean` or `@pooler` behind it chooses the pooling),
`torchvision:NAME`, `timm:NAME`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mvsa_tune.encoders import demo as demo_encoders
from mvsa_tune.encoders import loaders
from mvsa_tune.encoders import transformers as from_transformers
from mvsa_tune.encoders.towers import Tower
from mvsa_tune.errors import InputError


@dataclass(frozen=True)
class Encoder:
    """What a name stands for; nothing is loaded.

    Attributes:
        widths: length of its vectors by modality, 0 where only loading tells; the keys are the modalities it has. Empty for
            a model of the hub of which nothing is on this machine.
        loader: modality, weights (or None) and device → the loaded tower.
        source: where its weights come from when none are given.
        here: whether those are on this machine.
    """

    widths: Mapping[str, int]
    loader: Callable[[str, Path | None, Any], Tower]
    source: str
    here: Callable[[], bool]

    def load(self, modality: str, weights: Path | None, device: Any) -> Tower:
        """Load a tower; InputError if the weights cannot be had, or are not of this encoder's width."""
        tower, width = self.loader(modality, weights, device), self.widths[modality]
        if weights and width and tower.width != width:
            raise InputError(
                f"--weights {weights} gives {modality} vectors of width {tower.width}, where this encoder's ({self.source}) have "
                f"{width}: give it its own weights, or take these under an open name such as hf:FOLDER"
            )
        return tower


def _clip(architecture: str, width: int) -> Encoder:
    # OpenAI trained with QuickGELU; open_clip's plain architecture of the same name has GELU.
    load = partial(loaders.load_open_clip, f"{architecture}-quickgelu", "openai")
    here = partial(loaders.has_open_clip, architecture, "openai")
    return Encoder({"image": width, "text": width}, load, f"open_clip {architecture} openai", here)


def _torchvision(name: str, width: int, cut: str = "") -> Encoder:
    load, here = partial(loaders.load_torchvision, name, cut), partial(loaders.has_torchvision, name)
    return Encoder({"image": width}, load, f"torchvision {name}", here)


def _transformers(modality: str, source: str, pooling: str, width: int) -> Encoder:
    load = partial(from_transformers.load_transformers, source, pooling)
    return Encoder({modality: width}, load, f"hub {source}", partial(from_transformers.has_transformers, source))


ENCODERS: dict[str, Encoder] = {
    "clip-vit-b-32": _clip("ViT-B-32", 512),
    "clip-vit-b-16": _clip("ViT-B-16", 512),
    "clip-vit-l-14": _clip("ViT-L-14", 768),
    "resnet50": _torchvision("resnet50", 1000),
    "resnet50-pooled": _torchvision("resnet50", 2048, cut="fc"),
    "mobilenet_v2": _torchvision("mobilenet_v2", 1280, cut="classifier"),
    "vit-base-patch16-224": _transformers("image", "google/vit-base-patch16-224", "cls", 768),
    "roberta-base": _transformers("text", "FacebookAI/roberta-base", "pooler", 768),
    "roberta-base-mean": _transformers("text", "FacebookAI/roberta-base", "mean", 768),
    "deberta-v3-base": _transformers("text", "microsoft/deberta-v3-base", "mean", 768),
    "minilm": _transformers("text", "sentence-transformers/all-MiniLM-L6-v2", "mean", 384),
    "demo-pixels": Encoder({"image": 192}, demo_encoders.load_pixels, "built in", lambda: True),
    "demo-words": Encoder({"text": 128}, demo_encoders.load_words, "built in", lambda: True),
    "demo-convolutions": Encoder({"image": 32}, demo_encoders.load_convolutions, "built in", lambda: True),
    "demo-tokens": Encoder({"text": 32}, demo_encoders.load_tokens, "built in", lambda: True),
}


OPEN_NAMES = ("openclip", "hf", "torchvision", "timm")


def is_encoder(name: str) -> bool:
    """Whether a name is a preset's, or is written as an open one; what that stands for is not looked up."""
    kind, _, rest = name.partition(":")
    return name in ENCODERS or (kind in OPEN_NAMES and bool(rest))


def find_encoder(name: str, *, fetch: bool = True) -> Encoder | None:
    """Return the encoder of a preset or open name; None for a name that is neither.

    With `fetch`, the config of a model of the hub is fetched where it is not on this machine: it tells the modality.

    Raises:
        InputError: an open name that names nothing, saying what was expected; or the hub cannot be reached.
    """
    if name in ENCODERS or not is_encoder(name):
        return ENCODERS.get(name)
    kind, _, rest = name.partition(":")
    if kind == "hf":
        return _hub(rest, fetch)
    return {"openclip": _open_clip, "torchvision": _any_torchvision, "timm": _timm}[kind](rest)


def _open_clip(rest: str) -> Encoder:
    architecture, colon, tag = rest.partition(":")
    if not colon or not tag:
        raise InputError(f"openclip:{rest}: write openclip:ARCH:TAG_OR_FILE")
    widths = loaders.open_clip_widths(architecture)
    file = Path(tag) if Path(tag).suffix else None

    def load(modality: str, weights: Path | None, device: Any) -> Tower:
        return loaders.load_open_clip(architecture, "" if file else tag, modality, weights or file, device)

    here = file.exists if file else partial(loaders.has_open_clip, architecture, tag)
    return Encoder(widths, load, f"open_clip {architecture} {file.name if file else tag}", here)


def _hub(rest: str, fetch: bool) -> Encoder:
    source, _, pooling = rest.partition("@")
    if not source or pooling not in {"", "cls", "mean", "pooler"}:
        raise InputError(f"hf:{rest}: write hf:ID_OR_FOLDER; the pooling behind @ is one of cls, mean, pooler")
    known = from_transformers.modality_and_width(source, fetch)
    if known is None:
        return replace(_transformers("", source, pooling, 0), widths={})
    modality, width = known
    return _transformers(modality, source, pooling or {"image": "cls", "text": "mean"}[modality], width)


def _any_torchvision(name: str) -> Encoder:
    return _torchvision(name, loaders.torchvision_width(name))


def _timm(name: str) -> Encoder:
    load, here = partial(loaders.load_timm, name), partial(loaders.has_timm, name)
    return Encoder({"image": loaders.timm_width(name)}, load, f"timm {name}", here)
