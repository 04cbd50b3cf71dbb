"""Name → encoder. To add a preset, add an entry here; open names stand for all other models of a library.

An encoder may also come from a plug-in (docs/plugins.md).

Open names: `openclip:ARCH:TAG_OR_PATH`, `hf:ID_OR_FOLDER` (`@cls`, `@mean` or `@pooler` after it chooses the pooling),
`torchvision:NAME`, `timm:NAME`.
"""

from collections.abc import Iterable

from mvsa_tune.encoders import demo
from mvsa_tune.encoders.open_clip import open_clip_encoder, parse_open_clip
from mvsa_tune.encoders.towers import Encoder
from mvsa_tune.encoders.transformers import parse_transformers, transformers_encoder
from mvsa_tune.encoders.vision import parse_torchvision, timm_encoder, torchvision_encoder
from mvsa_tune.errors import InputError, did_you_mean
from mvsa_tune.plugins import Registry

PRESETS = {
    # OpenAI trained with QuickGELU; open_clip's architecture of the plain name has GELU.
    "clip-vit-b-32": open_clip_encoder("ViT-B-32-quickgelu", "openai", {"image": 512, "text": 512}),
    "clip-vit-b-16": open_clip_encoder("ViT-B-16-quickgelu", "openai", {"image": 512, "text": 512}),
    "clip-vit-l-14": open_clip_encoder("ViT-L-14-quickgelu", "openai", {"image": 768, "text": 768}),
    "resnet50": torchvision_encoder("resnet50", 1000),
    "resnet50-pooled": torchvision_encoder("resnet50", 2048, cut="fc"),
    "mobilenet_v2": torchvision_encoder("mobilenet_v2", 1280, cut="classifier"),
    "vit-base-patch16-224": transformers_encoder("google/vit-base-patch16-224", "cls", "image", 768),
    "roberta-base": transformers_encoder("FacebookAI/roberta-base", "pooler", "text", 768),
    "roberta-base-mean": transformers_encoder("FacebookAI/roberta-base", "mean", "text", 768),
    "deberta-v3-base": transformers_encoder("microsoft/deberta-v3-base", "mean", "text", 768),
    "minilm": transformers_encoder("sentence-transformers/all-MiniLM-L6-v2", "mean", "text", 384),
    "demo-pixels": Encoder({"image": 192}, demo.load_pixels),
    "demo-words": Encoder({"text": 128}, demo.load_words),
    "demo-convolutions": Encoder({"image": 32}, demo.load_convolutions),
    "demo-tokens": Encoder({"text": 32}, demo.load_tokens),
}
ENCODERS: Registry[Encoder] = Registry("mvsa_tune.encoders", Encoder, PRESETS)
OPEN_NAMES = ("openclip", "hf", "torchvision", "timm")


def register_encoder(name: str, encoder: Encoder) -> None:
    """Add an encoder: its name can then stand in pairs. InputError if the name is taken or unfit."""
    ENCODERS.register(name, encoder)


def is_encoder(name: str) -> bool:
    """Return whether a name is an encoder's, or has the form of an open name (whose model may not exist)."""
    kind, _, rest = name.partition(":")
    return name in ENCODERS or (kind in OPEN_NAMES and bool(rest))


def find_encoder(name: str, modality: str = "", *, fetch: bool = True, caches: Iterable[str] = ()) -> Encoder:
    """Return the encoder of a name.

    Args:
        name: a preset, a plug-in's name or an open name.
        modality: the modality that the encoder must have; empty if any will do.
        fetch: whether to fetch the config of a hub's model that is not on this machine: it tells the modality.
        caches: further names for the message that lists the known ones.

    Raises:
        InputError: the name is unknown, the model of an open name does not exist, the encoder lacks the modality, or
            the hub cannot be reached.
    """
    kind, _, rest = name.partition(":")
    if name in ENCODERS:
        encoder = ENCODERS[name]
    elif not is_encoder(name):
        names = list(dict.fromkeys([*ENCODERS, *ENCODERS.installed, *caches]))
        raise InputError(
            f"unknown encoder {name}{did_you_mean(name, names) or ':'} known are {', '.join(names)}, and open names "
            "such as timm:NAME or hf:FOLDER; vectors made elsewhere become an embedding cache by `mvsa-tune import "
            "--encoder NAME …`"
        )
    elif kind == "hf":
        encoder = parse_transformers(rest, fetch=fetch)
    else:
        encoder = {"openclip": parse_open_clip, "torchvision": parse_torchvision, "timm": timm_encoder}[kind](rest)
    if modality and encoder.widths and modality not in encoder.widths:
        raise InputError(f"encoder {name} has no {modality} side; write pairs as IMAGE_ENCODER+TEXT_ENCODER")
    return encoder
