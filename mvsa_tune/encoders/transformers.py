"""Transformers' models of pictures or of texts, from a folder or the hub: what one is, and its tower."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsa_tune.encoders.towers import PictureTower, TextTower, Tower
from mvsa_tune.encoders.weights import BY_WEIGHTS, cached, fetching, folder_identity, need_hub
from mvsa_tune.errors import InputError, some

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_LIMIT = 128  # tokens, as the reference cut their texts


def has_transformers(source: str) -> bool:
    """Whether a folder is there, or a hub id is in the hub's cache on this machine."""
    return Path(source).is_dir() or cached(source, "config.json") is not None


def modality_and_width(source: str, fetch: bool) -> tuple[str, int] | None:
    """What a model is, by its config: `image` or `text`, and the length of its vectors (0 where only loading tells).

    None where the config is not on this machine; with `fetch` it is fetched.

    Raises:
        InputError: there is no such folder, the hub cannot be reached, or it is a model of both or of neither.
    """
    import transformers

    if not Path(source).is_dir() and (source[0] in "/.~" or source.count("/") > 1):
        raise InputError(f"hf:{source}: there is no such folder, and a hub's id is OWNER/NAME")
    if not fetch and not has_transformers(source):
        return None
    config = _pretrained(transformers.AutoConfig, source, instead="write its folder's path: hf:FOLDER")
    body = transformers.AutoModel._model_mapping.get(type(config), None)
    modality = {"pixel_values": "image", "input_ids": "text"}.get(getattr(body, "main_input_name", ""))
    if hasattr(config, "vision_config") or modality is None or getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"hf:{source}: {config.model_type} is not an encoder of pictures alone or of texts alone; CLIP's two towers are "
            "openclip:ARCH:TAG_OR_FILE"
        )
    return modality, int(getattr(config, "hidden_size", 0))


def _pretrained(kind: Any, place: str, instead: str = BY_WEIGHTS, **options: Any) -> Any:
    """`from_pretrained` from a folder or the cache; from the hub only where it answers. No code of a folder's is run."""
    options["trust_remote_code"] = False
    try:
        return kind.from_pretrained(place, local_files_only=True, **options)
    except Exception as error:  # each format of weights has errors of its own
        if Path(place).is_dir() or not isinstance(error, (OSError, ValueError)):
            reason = str(error).splitlines()[0]
            raise InputError(f"{place} is not a complete transformers folder of plain tensors: {reason}") from None
    need_hub(place, instead=instead)
    with fetching(place, instead):
        return kind.from_pretrained(place, **options)


def _body(place: str, pooling: str) -> tuple[Any, str]:
    """A transformers model, every weight that its pooling uses from the file; and the pattern of that file's name.

    Raises:
        InputError: some are not in it: transformers would go on with random ones.
    """
    import transformers

    def load(**options: Any) -> tuple[Any, list[str]]:
        body, told = _pretrained(transformers.AutoModel, place, output_loading_info=True, **options)
        return body, sorted(key for key in told["missing_keys"] if pooling == "pooler" or "pooler" not in key)

    body, missing = load()
    files = "model*.safetensors*" if any(Path(place).glob("model*.safetensors*")) else "pytorch_model*.bin*"
    # A checkpoint whose safetensors lack the pooler may have it in an older .bin.
    older = not Path(place).is_dir() or (Path(place) / "pytorch_model.bin").exists()
    if missing and older and all("pooler" in key for key in missing):
        body, missing = load(use_safetensors=False)
        files = "pytorch_model*.bin*"
    if missing:
        advice = "; choose another pooling" if all("pooler" in key for key in missing) else ""
        raise InputError(f"the weights of {place} are not whole: they lack {some(missing, 2)}{advice}")
    return body, files


def _pooled(body: Any, pooling: str) -> Any:
    """A model and its pooling as one: pixels `(n, 3, H, W)`, or ids and mask `(n, L)`, → `(n, width)`."""
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
    """How many tokens a model has positions for; `TEXT_LIMIT` where it has no such limit."""
    positions = int(getattr(body.config, "max_position_embeddings", None) or 0)
    for name, module in body.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions -= module.padding_idx + 1  # RoBERTa and its kin count from behind the padding's position
    return positions if positions > 0 else TEXT_LIMIT


def load_transformers(source: str, pooling: str, modality: str, weights: Path | None, device: Any) -> Tower:
    """A transformers model with its pooling: `pooler` output, `cls` token, or `mean` over the tokens."""
    import transformers

    if weights and not weights.is_dir():
        raise InputError(f"--weights {weights}: transformers takes a folder (config.json, weights and tokenizer in it)")
    place = str(weights or source)
    transformers.utils.logging.disable_progress_bar()
    body, files = _body(place, pooling)
    local = Path(place).is_dir()
    identity = folder_identity(Path(place), files) if local else f"{place} revision {body.config._commit_hash}"
    model = _pooled(body.float(), pooling).eval().to(device)
    if modality == "image":
        processor = _pretrained(transformers.AutoImageProcessor, place)

        def transform(picture: "Image") -> Any:
            return processor(picture, return_tensors="pt")["pixel_values"][0]

        about = f"{type(processor).__name__} {dict(processor.size)}, {pooling}"
        return PictureTower(model, transform, about, identity, device)
    tokenizer = _pretrained(transformers.AutoTokenizer, place)

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, truncation=False, verbose=False)["input_ids"])

    limit = min(TEXT_LIMIT, tokenizer.model_max_length, _positions(body))
    described = (f"{type(tokenizer).__name__}, at most {limit} tokens, {pooling}", identity)
    tower = TextTower(model, tokens, limit, body.config.hidden_size, described, device)
    tower.pad = tokenizer.pad_token_id or 0
    return tower
