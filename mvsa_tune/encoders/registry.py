"""Name → encoder. To add a preset, add an entry to `ENCODERS`; open names stand for all other models of a library.

Open names: `openclip:ARCH:TAG_OR_FILE`, `hf:ID_OR_FOLDER` (`@cls`, `@mean` or `@pooler` after it chooses the pooling),
`torchvision:NAME`, `timm:NAME`.
"""

from mvsa_tune.encoders import demo
from mvsa_tune.encoders.open_clip import open_clip_encoder, parse_open_clip
from mvsa_tune.encoders.towers import Encoder
from mvsa_tune.encoders.transformers import parse_transformers, transformers_encoder
from mvsa_tune.encoders.vision import parse_torchvision, timm_encoder, torchvision_encoder

ENCODERS: dict[str, Encoder] = {
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
OPEN_NAMES = ("openclip", "hf", "torchvision", "timm")


def is_encoder(name: str) -> bool:
    """Return whether a name is a preset's, or is written as an open name (what that stands for is not looked up)."""
    kind, _, rest = name.partition(":")
    return name in ENCODERS or (kind in OPEN_NAMES and bool(rest))


def find_encoder(name: str, *, fetch: bool = True) -> Encoder | None:
    """Return the encoder of a preset's name or an open name; None for another name.

    With `fetch`, the config of a hub's model that is not on this machine is fetched: it tells the modality.

    Raises:
        InputError: an open name of nothing that exists; or the hub cannot be reached.
    """
    if name in ENCODERS or not is_encoder(name):
        return ENCODERS.get(name)
    kind, _, rest = name.partition(":")
    if kind == "hf":
        return parse_transformers(rest, fetch=fetch)
    return {"openclip": parse_open_clip, "torchvision": parse_torchvision, "timm": timm_encoder}[kind](rest)
