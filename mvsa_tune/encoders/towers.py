"""The types of encoders: an `Encoder` is not loaded yet; loading it gives a `Tower` for one modality."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsa_tune.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class Tower(ABC):
    """One modality of a loaded encoder."""

    width: int  # length of its vectors
    preprocessing: str  # what `prepare` does, in one line, for the manifest
    weights: str  # identity of the weights: file and SHA-256, hub id and revision, or `built in`

    @abstractmethod
    def prepare(self, item: Any) -> Any:
        """Return an RGB picture, or a text as a sequence, as `encode` takes it. Several threads may call it at once."""

    @abstractmethod
    def encode(self, prepared: Sequence[Any]) -> "torch.Tensor":
        """Return the vectors of a batch, `(n, width)`, float32, on the CPU."""

    def is_truncated(self, prepared: Any) -> bool:
        """Return whether a prepared text is longer than the encoder takes, so that `encode` cuts it."""
        return False


@dataclass(eq=False)
class ModelTower(Tower):
    """A torch model with its preprocessing; the model is moved to the device and set to evaluation."""

    model: Any  # a module: what `collate` returns → `(n, width)`
    device: Any
    preprocessing: str
    weights: str

    def __post_init__(self) -> None:
        self.model = self.model.eval().to(self.device)

    @abstractmethod
    def collate(self, prepared: Sequence[Any]) -> tuple["torch.Tensor", ...]:
        """Return a batch as the model takes it, on the CPU."""

    def encode(self, prepared: Sequence[Any]) -> "torch.Tensor":
        """Run the model without gradients, on a GPU in float16; return `(n, width)`, float32, on the CPU."""
        import torch

        mixed = torch.autocast(self.device.type, dtype=torch.float16, enabled=self.device.type == "cuda")
        with torch.inference_mode(), mixed:
            vectors = self.model(*(tensor.to(self.device) for tensor in self.collate(prepared)))
            return vectors.float().cpu()  # type: ignore[no-any-return]


@dataclass(eq=False)
class PictureTower(ModelTower):
    """A model of pixels; `transform` turns an RGB picture into `(3, H, W)`."""

    transform: Callable[["Image"], "torch.Tensor"]
    crops: bool = False  # whether `transform` resizes the shorter side and keeps the middle square

    def __post_init__(self) -> None:
        import torch
        from PIL import Image

        super().__post_init__()
        blank = self.transform(Image.new("RGB", (256, 256)))
        with torch.inference_mode():
            self.width = int(self.model(blank[None].to(self.device)).shape[1])

    def prepare(self, item: "Image") -> "torch.Tensor":
        """Return an RGB picture as `(3, H, W)`."""
        from mvsa_tune.data.images import keep_middle

        return self.transform(keep_middle(item) if self.crops else item)

    def collate(self, prepared: Sequence["torch.Tensor"]) -> tuple["torch.Tensor", ...]:
        """Return the pixels of a batch, `(n, 3, H, W)`."""
        import torch

        return (torch.stack(list(prepared)),)


@dataclass(eq=False)
class TextTower(ModelTower):
    """A model of tokens: `model(ids (n, L), mask (n, L))` → `(n, width)`."""

    tokenize: Callable[[str], list[int]]  # a text → all its tokens, special ones included
    limit: int  # tokens that the model takes
    width: int
    pad: int = 0  # the padding token
    pad_to_limit: bool = False  # instead of to the longest text of a batch
    # The libraries' tokenizers are not safe in several threads.
    lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def prepare(self, item: str) -> list[int]:
        """Return all tokens of a text, special ones included."""
        with self.lock:
            return self.tokenize(item)

    def is_truncated(self, prepared: list[int]) -> bool:
        """Return whether there are more tokens than the limit."""
        return len(prepared) > self.limit

    def cut(self, prepared: list[int]) -> list[int]:
        """Return the tokens up to the limit; the last, a special one, is kept."""
        return prepared if len(prepared) <= self.limit else [*prepared[: self.limit - 1], prepared[-1]]

    def collate(self, prepared: Sequence[list[int]]) -> tuple["torch.Tensor", ...]:
        """Cut and pad; return ids and mask, `(n, L)` each."""
        import torch

        texts = [self.cut(tokens) for tokens in prepared]
        ids = torch.full((len(texts), self.limit if self.pad_to_limit else max(map(len, texts))), self.pad)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(texts):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids, mask


@dataclass(frozen=True)
class Encoder:
    """What an encoder's name stands for; nothing is loaded yet."""

    # Length of the vectors by modality, 0 if only loading tells. Empty if a hub's model is not on this machine.
    widths: Mapping[str, int]
    loader: Callable[[str, Path | None, Any], Tower]  # modality, weights (None: the published ones), device → tower
    source: str = "built in"  # where the published weights come from
    is_local: Callable[[], bool] = lambda: True  # whether they are on this machine

    def load(self, modality: str, weights: Path | None, device: Any) -> Tower:
        """Load a tower; InputError if the weights cannot be had, or their vectors have another width."""
        tower, width = self.loader(modality, weights, device), self.widths[modality]
        if weights and width and tower.width != width:
            raise InputError(
                f"--weights {weights} gives {modality} vectors of width {tower.width}, this encoder's have {width} "
                f"({self.source}): give its own weights, or use these under an open name such as hf:FOLDER"
            )
        return tower
