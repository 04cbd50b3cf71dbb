"""Models of transformers, of pictures or of texts, from a folder or the hub."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsa_tune.encoders.state_dict import identity_of, start_of
from mvsa_tune.encoders.towers import Encoder, PictureTower, TextTower, Tower
from mvsa_tune.encoders.weights import GIVE_WEIGHTS, cached, cached_id, fetch_from_hub, first_line
from mvsa_tune.errors import InputError, some

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TEXT_LIMIT = 128  # tokens, as the reference cut its texts
POOLINGS = ("cls", "mean", "pooler")
# The files of a folder that transformers reads, besides the weights.
SETTINGS = ("config.json", "*processor_config.json", "tokenizer*", "vocab*", "merges.txt", "*.model", "*tokens*.json")

# Names in CLIP's state dict → open_clip's, replaced one after another.
CLIP_NAMES = {
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings": "visual",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.": "",
    "text_model.encoder.layers": "transformer.resblocks",
    "text_model.final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
    "self_attn": "attn",
    "layer_norm": "ln_",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def transformers_encoder(source: str, pooling: str, modality: str, width: int) -> Encoder:
    """Return the encoder of a model and a pooling: `pooler` output, `cls` token, or `mean` over the tokens."""
    return Encoder({modality: width}, partial(_load, source, pooling), f"hub {source}", lambda: _is_local(source))


def parse_transformers(rest: str, *, fetch: bool) -> Encoder:
    """Return the encoder of `ID_OR_FOLDER[@POOLING]`, by default `cls` of pictures and `mean` of texts.

    The model's config tells the modality. If it is not on this machine, it is fetched or, without `fetch`, the widths
    stay empty.

    Raises:
        InputError: there is no such folder, the hub cannot be reached, or it is a model of both modalities or of none.
    """
    source, _, pooling = rest.partition("@")
    if not source or pooling not in {"", *POOLINGS}:
        raise InputError(f"hf:{rest}: write hf:ID_OR_FOLDER; the pooling after @ is one of {', '.join(POOLINGS)}")
    if not Path(source).is_dir() and (source[0] in "/.~" or source.count("/") > 1):
        raise InputError(f"hf:{source}: there is no such folder, and the id of a hub's model is OWNER/NAME")
    if not fetch and not _is_local(source):
        return Encoder({}, partial(_load, source, pooling), f"hub {source}", lambda: False)
    import transformers

    config = pretrained(transformers.AutoConfig, source, instead="write the folder's path: hf:FOLDER")
    body = transformers.AutoModel._model_mapping.get(type(config), None)
    modality = {"pixel_values": "image", "input_ids": "text"}.get(getattr(body, "main_input_name", ""))
    if hasattr(config, "vision_config") or modality is None or getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"hf:{source}: {config.model_type} is not an encoder of pictures alone or of texts alone; CLIP's two "
            "towers are openclip:ARCH:TAG, openclip:ARCH:FILE or openclip:ARCH:FOLDER"
        )
    default = "cls" if modality == "image" else "mean"
    return transformers_encoder(source, pooling or default, modality, int(getattr(config, "hidden_size", 0)))


def _is_local(source: str) -> bool:
    """Return whether it is a folder, or a model in the hub's cache on this machine."""
    return Path(source).is_dir() or cached(cached_id(source), "config.json") is not None


def _revision(source: str) -> str:
    """Return the commit of a hub's model in the cache: the name of the folder that its files are in."""
    config = cached(cached_id(source), "config.json")
    return config.parent.name if config else "unknown"


def pretrained(kind: Any, source: str, instead: str = GIVE_WEIGHTS, **options: Any) -> Any:
    """Return `kind.from_pretrained` of a folder, the cache or the hub. No code that lies beside the weights is run."""
    load = partial(kind.from_pretrained, trust_remote_code=False, **options)
    try:
        return load(cached_id(source), local_files_only=True)
    except Exception as error:  # each format of weights has errors of its own
        if Path(source).is_dir() or not isinstance(error, (OSError, ValueError)):
            raise InputError(
                f"{source} is not a complete transformers folder of plain tensors: {first_line(error)}"
            ) from None
    return fetch_from_hub(source, "config.json", partial(load, source), instead, what=source)


def _body(source: str, pooling: str) -> tuple[Any, str]:
    """Return a model and its weights' file pattern; InputError if a weight that the pooling uses is missing.

    transformers itself would go on with random weights.
    """
    import transformers

    def load(**options: Any) -> tuple[Any, list[str]]:
        body, info = pretrained(transformers.AutoModel, source, output_loading_info=True, **options)
        return body, sorted(key for key in info["missing_keys"] if pooling == "pooler" or "pooler" not in key)

    body, missing = load()
    files = "model*.safetensors*" if any(Path(source).glob("model*.safetensors*")) else "pytorch_model*.bin*"
    # A checkpoint whose safetensors lack the pooler may have it in an older .bin.
    has_older = not Path(source).is_dir() or (Path(source) / "pytorch_model.bin").exists()
    if missing and has_older and all("pooler" in key for key in missing):
        body, missing = load(use_safetensors=False)
        files = "pytorch_model*.bin*"
    if missing:
        advice = "; choose another pooling" if all("pooler" in key for key in missing) else ""
        raise InputError(f"the weights of {source} are not complete: they lack {some(missing, 2)}{advice}")
    return body, files


def _pooled(body: Any, pooling: str) -> Any:
    """Return model and pooling as one: pixels `(n, 3, H, W)`, or ids and mask `(n, L)`, → `(n, width)`."""
    from torch import nn

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Any, mask: Any = None) -> Any:
            out = self.body(pixel_values=x) if mask is None else self.body(input_ids=x, attention_mask=mask)
            if pooling == "pooler":
                return out.pooler_output.flatten(1)
            states = out.last_hidden_state
            if states.ndim != 3:
                raise InputError(f"{type(body).__name__} gives a map, not tokens: choose the pooling @pooler")
            if pooling == "cls":
                return states[:, 0]
            weight = states.new_ones(states.shape[:2]) if mask is None else mask.to(states.dtype)
            return (states * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)

    return Pooled()


def _positions(body: Any) -> int:
    """Return how many tokens a model has positions for; `TEXT_LIMIT` where it has no such limit."""
    positions = int(getattr(body.config, "max_position_embeddings", None) or 0)
    for name, module in body.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= module.padding_idx + 1  # RoBERTa and its kin count from behind the padding's position
    return positions if positions > 0 else TEXT_LIMIT


def _load(model_source: str, pooling: str, modality: str, weights: Path | None, device: Any) -> Tower:
    import transformers

    if weights and not weights.is_dir():
        raise InputError(f"--weights {weights}: transformers takes a folder (config.json, weights and tokenizer in it)")
    source = str(weights or model_source)
    for pattern in ("*.safetensors", "*.bin", "*.model", "tokenizer.json"):
        for path in Path(source).glob(pattern):
            start_of(path)  # raises for what stands in for a large file
    transformers.utils.logging.disable_progress_bar()
    body, files = _body(source, pooling)
    is_folder = Path(source).is_dir()
    read = {path for pattern in (files, *SETTINGS) for path in Path(source).glob(pattern)} if is_folder else ()
    identity = identity_of(Path(source), read) if is_folder else f"{source} revision {_revision(source)}"
    model = _pooled(body.float(), pooling)
    if modality == "image":
        processor = pretrained(transformers.AutoImageProcessor, source)

        def transform(picture: "Image") -> Any:
            return processor(picture, return_tensors="pt")["pixel_values"][0]

        about = f"{type(processor).__name__} {dict(processor.size)}, {pooling}"
        return PictureTower(model, device, about, identity, transform, crops="shortest_edge" in dict(processor.size))
    tokenizer = pretrained(transformers.AutoTokenizer, source)

    def tokenize(text: str) -> list[int]:
        return list(tokenizer(text, truncation=False, verbose=False)["input_ids"])

    limit = min(TEXT_LIMIT, tokenizer.model_max_length, _positions(body))
    about = f"{type(tokenizer).__name__}, at most {limit} tokens, {pooling}"
    pad = tokenizer.pad_token_id or 0
    return TextTower(model, device, about, identity, tokenize, limit, body.config.hidden_size, pad)


def clip_recipe(folder: Path) -> dict[str, Any]:
    """Return the activation and preprocessing of a CLIP folder under open_clip's names; InputError for other models."""
    import transformers
    from PIL import Image

    config = pretrained(transformers.AutoConfig, str(folder))
    if config.model_type != "clip":
        raise InputError(f"{folder} is a model of transformers of kind {config.model_type}, not clip")
    processor = pretrained(transformers.AutoImageProcessor, str(folder))
    return {
        "quick_gelu": config.vision_config.hidden_act == "quick_gelu",
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
        "interpolation": Image.Resampling(int(processor.resample)).name.lower(),
        "resize_mode": "squash" if "height" in dict(processor.size) else "shortest",
    }


def clip_weights(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """Return the weights of transformers' CLIP under open_clip's names; others as they are."""
    import torch

    if not any(name.startswith(("vision_model.", "text_model.")) for name in tensors):
        return tensors
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for theirs, ours in CLIP_NAMES.items():
            name = name.replace(theirs, ours)
        renamed[name] = tensor.T if name in ("visual.proj", "text_projection") else tensor
    for name in [name for name in renamed if ".q_proj." in name]:
        names = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
        if all(part in renamed for part in names):
            renamed[name.replace(".q_proj.", ".in_proj_")] = torch.cat([renamed.pop(part) for part in names])
    return {name: tensor for name, tensor in renamed.items() if not name.endswith("position_ids")}
