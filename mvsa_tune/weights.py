"""The weights of encoders: from a path, from the hub's cache on this machine, or from the hub.

Nothing is unpickled: safetensors, or torch's `weights_only`.
"""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from mvsa_tune.errors import InputError, some
from mvsa_tune.files import sha256_of


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read a state dict from safetensors or a torch file, unpickling nothing."""
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read --weights {path}: {error.strerror or error}") from None
    except Exception as error:  # each format has errors of its own; whatever it is, the file is not plain tensors
        reason = str(error).splitlines()[0]
        raise InputError(f"--weights {path} is not a file of plain tensors (nothing is unpickled): {reason}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"--weights {path} does not hold a state dict")
    return dict(loaded.get("state_dict", loaded))


def fill(model: Any, path: Path) -> str:
    """Load a state dict into a model, every name matching; return the weights' identity."""
    weights = read_state_dict(path)
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise InputError(f"--weights {path} has other shapes: {str(error).splitlines()[1].strip()}") from None
    if missing or unexpected:
        told = (
            f"it lacks {some(list(missing), 2) or 'nothing'}, and has {some(list(unexpected), 2) or 'nothing'} beyond"
        )
        raise InputError(f"--weights {path} does not fit the model: {told}")
    return f"{path.name} sha256:{sha256_of(path)}"


def reachable(url: str) -> bool:
    """Whether the host of a URL, or the proxy on the way to it, answers within five seconds."""
    place = urlsplit(getproxies().get("https", url))
    port = place.port or {"http": 80}.get(place.scheme, 443)
    try:
        socket.create_connection((place.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """A download that fails is one line: a name that is not there, a login that is needed, a line that breaks."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"cannot fetch {what} ({reason}): fetch it elsewhere and give --weights PATH") from None


def cached(repository: str, name: str) -> Path | None:
    """A file of the hub in its cache on this machine."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def hub_file(repository: str, name: str) -> Path:
    """A file of the hub: from its cache on this machine, else fetched."""
    if found := cached(repository, name):
        return found
    from huggingface_hub import hf_hub_download

    need_hub(f"{name} of {repository}")
    with fetching(f"{name} of {repository}"):
        return Path(hf_hub_download(repository, name, etag_timeout=5))


def need_hub(what: str) -> None:
    """InputError, within seconds, unless the hub can be reached; `what` is what is wanted of it."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        raise InputError(
            f"no weights: {what} is not in the hub's cache on this machine, and the hub cannot be reached: fetch it elsewhere "
            "and give its path with --weights PATH"
        )


def folder_identity(folder: Path) -> str:
    """Identity of a folder of weights: SHA-256 over its files' names and contents."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return f"{folder.name}/ sha256:{digest.hexdigest()}"
