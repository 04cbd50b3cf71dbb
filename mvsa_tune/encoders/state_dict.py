"""State dicts of encoders: read from a file or folder, and loaded into a model. No code that a file brings is run.

identity = load_weights(model, Path("mobilenet_v2.pth"))
"""

import hashlib
import io
import pickletools
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile, is_zipfile

from mvsa_tune.encoders.weights import first_line
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

# A folder's weights: the first of these that there are, all parts of it.
IN_FOLDER = [f"open_clip_*model.{suffix}" for suffix in ("safetensors", "bin")]
IN_FOLDER += ["model.safetensors", "model-*-of-*.safetensors", "pytorch_model.bin", "pytorch_model-*-of-*.bin"]
NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep the state dict in a checkpoint
WRAPPERS = ("module.", "model.", "_orig_mod.")  # before every name, if a wrapper of the model was saved
# What files that are not the ones wanted begin with, in small letters.
STAND_INS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself: run git lfs pull where it lies",
    b"<": "is a web page: download the file itself",
}


def weight_files(path: Path) -> list[Path]:
    """Return a file, or the weights in a folder; InputError if it has none."""
    if not path.is_dir():
        return [path]
    files = next((files for pattern in IN_FOLDER if (files := sorted(path.glob(pattern)))), [])
    if not files:
        raise InputError(f"--weights {path} is a folder without weights ({', '.join(IN_FOLDER)}): give a file")
    return files


def identity_of(path: Path, files: Iterable[Path]) -> str:
    """Return the name and SHA-256 of a file, or of a folder's `files`."""
    if not path.is_dir():
        return f"{path.name} sha256:{sha256_of(path)}"
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return f"{path.absolute().name}/ sha256:{digest.hexdigest()}"


def read_state_dict(path: Path) -> "dict[str, Tensor]":
    """Read safetensors, a torch file or a TorchScript archive, or those of a folder.

    Returns:
        Tensor by name, without what surrounds the state dict in a checkpoint or precedes every name.

    Raises:
        InputError: there is no such file, it cannot be read without running code, or it is no state dict.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(path):
        tensors |= _read_file(file)
    while prefix := next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def start_of(path: Path) -> bytes:
    """Return the first bytes of a file; InputError if it cannot be read, or stands in for the one that was wanted."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read --weights {path}: {error.strerror}") from None
    for sign, what in STAND_INS.items():
        if start.lower().startswith(sign):
            raise InputError(f"--weights {path} {what}")
    return start


def _read_file(path: Path) -> "dict[str, Tensor]":
    import torch

    start = start_of(path)
    try:
        loaded = _load(path, start)
    except Exception as error:  # each format has errors of its own; whatever it is, the file is not plain tensors
        if python := re.search(r"GLOBAL ([\w.]+)\s", str(error)):
            raise InputError(
                f"--weights {path} has a Python object ({python[1]}), which only code could read: save the tensors "
                "alone where it was made, torch.save(model.state_dict(), FILE)"
            ) from None
        reason = first_line(error).partition(". ")[0][:120]
        if re.search("weights.only", reason, re.IGNORECASE):  # it would have the reader run the file's code
            reason = "torch cannot read it"
        raise InputError(
            f"--weights {path} is cut off, or no file of tensors ({reason or 'it is empty'}): give safetensors, or "
            "what torch.save made of a state dict"
        ) from None
    while isinstance(loaded, dict) and (
        inner := next((key for key in NESTED if isinstance(loaded.get(key), dict)), "")
    ):
        loaded = loaded[inner]
    if not isinstance(loaded, dict):
        raise InputError(f"--weights {path} holds {type(loaded).__name__}, not a state dict")
    other = [repr(k) for k, v in loaded.items() if not isinstance(k, str) or not isinstance(v, torch.Tensor)]
    if other or not loaded:
        raise InputError(f"--weights {path} is no state dict: it has {some(other, 2) or 'nothing'}")
    return loaded


def _load(path: Path, start: bytes) -> Any:
    """Return what a file holds."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what then raises
        if is_zipfile(path):
            with ZipFile(path) as archive:
                constants = next((name for name in archive.namelist() if name.endswith("/constants.pkl")), "")
                if constants:
                    return dict(_tensors(_read_script(archive, constants.removesuffix("constants.pkl"))))
        return torch.load(path, map_location="cpu", weights_only=True)


class _Module:
    """Stands for an object of any class of a TorchScript archive: only its attributes are kept."""


def _read_script(archive: ZipFile, root: str) -> _Module:
    """Return the module of a TorchScript archive.

    `torch.jit.load` would compile the archive's code and run what restores its objects. Without that code torch takes
    it for a file of `torch.save`, all of whose classes stand for attributes alone.
    """
    import torch

    plain = io.BytesIO()
    with ZipFile(plain, "w") as copy:
        for name in archive.namelist():
            if name.startswith((f"{root}data", f"{root}version", f"{root}byteorder")):
                copy.writestr(name, archive.read(name))
    plain.seek(0)
    operations = pickletools.genops(archive.read(f"{root}data.pkl"))
    names = {str(name).replace(" ", ".") for operation, name, _ in operations if operation.name == "GLOBAL"}
    stand_ins: list[Any] = [(_Module, name) for name in names if name.startswith("__torch__.")]
    stand_ins += [(_value, name) for name in names if name.startswith("torch.jit._pickle.")]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(plain, map_location="cpu", weights_only=True)


def _value(value: Any, *_: Any) -> Any:
    """Return a value as it is, without the type that an archive has beside it."""
    return value


def _tensors(module: _Module, prefix: str = "") -> "Iterator[tuple[str, Tensor]]":
    """Yield a module's tensors and those of the modules in it, by full name."""
    import torch

    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")


def load_weights(model: Any, path: Path, *, extra: bool = False) -> str:
    """Read a state dict and load it as `fill` does; return its identity."""
    fill(model, read_state_dict(path), path, extra=extra)
    return identity_of(path, weight_files(path))


def fill(model: Any, tensors: "Mapping[str, Tensor]", path: Path, *, extra: bool = False) -> None:
    """Load a state dict into a model.

    Raises:
        InputError: a tensor is missing or has another shape, or there are more (unless `extra` allows that).
    """
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise InputError(f"--weights {path} has other shapes: {str(error).splitlines()[1].strip()}") from None
    wrong = {"missing": list(missing), "unexpected": [] if extra else list(unexpected)}
    if parts := [f"{kind} {some(names, 2)}" for kind, names in wrong.items() if names]:
        raise InputError(f"--weights {path} does not fit the model: {'; '.join(parts)}")
