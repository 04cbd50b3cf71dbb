"""What a loaded encoder is to the rest: a tower for each modality, that prepares a sample and encodes a batch."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class Tower(ABC):
    """One modality of a loaded encoder.

    Attributes:
        width: length of its vectors.
        preprocessing: what `prepare` does, in a line, for the manifest.
        weights: identity of the weights: file and SHA-256, hub id and revision, or `built in`.
    """

    width: int
    preprocessing: str
    weights: str

    @abstractmethod
    def prepare(self, item: Any) -> Any:
        """An RGB picture or a text as `encode` takes it; safe to call from several threads."""

    @abstractmethod
    def encode(self, prepared: Sequence[Any]) -> "torch.Tensor":
        """Encode a batch: `(n, width)` float32, on the CPU."""

    def is_truncated(self, prepared: Any) -> bool:
        """Whether a prepared text is longer than the encoder takes: `encode` cuts it."""
        return False

    def length(self, prepared: Any) -> int:
        """Tokens of a prepared text; 1 for what has none. Batches of like length need little padding."""
        return 1


class ModelTower(Tower):
    """A torch model behind what `prepare` makes.

    Attributes:
        model: tensors of `collate` → `(n, width)`, on `device`.
    """

    model: Any
    device: Any

    @abstractmethod
    def collate(self, prepared: Sequence[Any]) -> tuple["torch.Tensor", ...]:
        """A batch as the model takes it, on the CPU."""

    def encode(self, prepared: Sequence[Any]) -> "torch.Tensor":
        """Run the model without gradients; on a GPU in float16."""
        import torch

        mixed = torch.autocast(self.device.type, dtype=torch.float16, enabled=self.device.type == "cuda")
        with torch.inference_mode(), mixed:
            vectors = self.model(*(one.to(self.device) for one in self.collate(prepared)))
            return vectors.float().cpu()  # type: ignore[no-any-return]


class PictureTower(ModelTower):
    """A model of pixels behind a transform."""

    def __init__(
        self, model: Any, transform: Callable[["Image"], "torch.Tensor"], preprocessing: str, weights: str, device: Any
    ) -> None:
        import torch
        from PIL import Image

        self.model, self.transform, self.device = model.eval().to(device), transform, device
        self.preprocessing, self.weights = preprocessing, weights
        blank = transform(Image.new("RGB", (256, 256)))
        with torch.inference_mode():
            self.width = int(self.model(blank[None].to(device)).shape[1])

    def prepare(self, item: "Image") -> "torch.Tensor":
        """RGB → `(3, H, W)`."""
        return self.transform(item)

    def collate(self, prepared: Sequence["torch.Tensor"]) -> tuple["torch.Tensor", ...]:
        """`(3, H, W)` each → `(n, 3, H, W)`."""
        import torch

        return (torch.stack(list(prepared)),)


class TextTower(ModelTower):
    """A model of tokens: `model(ids (n, L), mask (n, L))` → `(n, width)`."""

    def __init__(
        self,
        model: Any,
        tokens: Callable[[str], list[int]],
        limit: int,
        width: int,
        about: tuple[str, str],
        device: Any,
    ) -> None:
        self.model, self.tokens, self.limit, self.width, self.device = model, tokens, limit, width, device
        self.preprocessing, self.weights = about
        self.pad = 0
        self.pad_to_limit = False
        self.lock = threading.Lock()  # the libraries' tokenisers are not safe in several threads

    def prepare(self, item: str) -> list[int]:
        """All tokens of a text, special ones included."""
        with self.lock:
            return self.tokens(item)

    def is_truncated(self, prepared: list[int]) -> bool:
        """Whether its tokens are more than the limit."""
        return len(prepared) > self.limit

    def cut(self, prepared: list[int]) -> list[int]:
        """Tokens up to the limit; the last special one stays."""
        return prepared if len(prepared) <= self.limit else [*prepared[: self.limit - 1], prepared[-1]]

    def length(self, prepared: list[int]) -> int:
        """Number of tokens."""
        return len(prepared)

    def collate(self, prepared: Sequence[list[int]]) -> tuple["torch.Tensor", ...]:
        """Cut, pad, mask: ids and mask, `(n, L)` each."""
        import torch

        fitting = [self.cut(own) for own in prepared]
        longest = self.limit if self.pad_to_limit else max(map(len, fitting))
        ids = torch.full((len(fitting), longest), self.pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, own in enumerate(fitting):
            ids[row, : len(own)] = torch.tensor(own)
            mask[row, : len(own)] = 1
        return ids, mask
