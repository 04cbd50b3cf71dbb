"""Checkpoints of fine-tuning, in `results/NAME/checkpoints/TRIAL/`: of each replicate its last state and its best weights.

`SEED-FOLD.last.safetensors` is all that the next epoch depends on; it goes when the trial is recorded as finished. `SEED-FOLD.best.safetensors`
holds the weights of the best epoch, for `predict`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from mvsa_tune.config import Config, Replicate
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_whole

if TYPE_CHECKING:
    from torch import Tensor


class Checkpoints:
    """Those of one trial."""

    def __init__(self, sweep: Path, config: Config) -> None:
        self.folder = sweep / "checkpoints" / config.id

    def last(self, replicate: Replicate) -> Path:
        """Where a replicate's last state lies."""
        return self.folder / f"{replicate.seed}-{replicate.fold}.last.safetensors"

    def best(self, replicate: Replicate) -> Path:
        """Where the weights of its best epoch lie."""
        return self.folder / f"{replicate.seed}-{replicate.fold}.best.safetensors"

    def finish(self) -> None:
        """Throw the last states away: nothing is left to train."""
        for path in self.folder.glob("*.last.safetensors"):
            path.unlink()


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", about: Mapping[str, Any]) -> None:
    """Write tensors, wherever they are, as safetensors: whole or not at all. `about` goes into the file's metadata.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.torch import save  # torch takes a while to import

    here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(here, {"about": json.dumps(dict(about))})
    write_whole(path, lambda file: file.write(content))


def read_tensors(path: Path, prefixes: Sequence[str] = ("",)) -> "dict[str, Tensor]":
    """Read the tensors whose names begin with one of `prefixes`, and no more of the file than that.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(tuple(prefixes))}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            f"the checkpoint {path} cannot be read ({str(error)[:80]}): delete it to train that anew"
        ) from None


def read_about(path: Path) -> dict[str, Any]:
    """Read what `write_tensors` was told the tensors are; `InputError` as in `read_tensors`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            return dict(json.loads(file.metadata()["about"]))
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"the checkpoint {path} cannot be read ({str(error)[:80]})") from None
