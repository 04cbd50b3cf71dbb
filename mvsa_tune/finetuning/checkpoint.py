"""Checkpoints of fine-tuning, in `results/NAME/checkpoints/TRIAL/`: two files of tensors for each replicate.

`SEED-FOLD.last.safetensors` holds all that the next epoch depends on; it is deleted when the trial has finished.
`SEED-FOLD.best.safetensors` holds the weights of the best epoch, for `predict`.

write_tensors(path, network.state_dict(), {"epoch": 3})
tensors, about = read_tensors(path)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from mvsa_tune.config import Config, Replicate
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor


class Checkpoints:
    """The checkpoint files of one trial."""

    def __init__(self, sweep: Path, config: Config) -> None:
        self.folder = sweep / "checkpoints" / config.id

    def last(self, replicate: Replicate) -> Path:
        """Return the path of a replicate's last state."""
        return self.folder / f"{replicate.seed}-{replicate.fold}.last.safetensors"

    def best(self, replicate: Replicate) -> Path:
        """Return the path of the weights of a replicate's best epoch."""
        return self.folder / f"{replicate.seed}-{replicate.fold}.best.safetensors"

    def finish(self) -> None:
        """Delete the last states: nothing is left to train."""
        for path in self.folder.glob("*.last.safetensors"):
            path.unlink()


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", about: Mapping[str, Any], key: str = "about") -> None:
    """Write tensors as safetensors, whole or not at all, with `about` as JSON under `key` of the file's metadata."""
    from safetensors.torch import save  # torch takes a while to import

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(plain, {key: json.dumps(dict(about))})
    write_whole(path, lambda file: file.write(content))


def read_tensors(path: Path, prefix: str = "", key: str = "about") -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Return the tensors whose names begin with `prefix`, by the rest of the name, and `about` of `write_tensors`.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            tensors = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
            return tensors, dict(json.loads(file.metadata()[key]))
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({str(error)[:80]}): delete it and run the same command again") from None
