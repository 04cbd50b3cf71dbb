"""The weights of encoders: from a path, from the hub's cache on this machine, or from the hub.

Nothing is unpickled: safetensors, or torch's `weights_only`.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from mvsa_tune.errors import InputError, some
from mvsa_tune.files import sha256_of

ANSWER_SECONDS = 5  # that a server may take before it counts as out of reach
BY_WEIGHTS = "give its path with --weights PATH"


def weights_by_name(texts: Sequence[str]) -> dict[str, Path]:
    """`ENCODER=PATH` each → path by encoder; InputError where one is not of that form, or nothing is there."""
    weights = {name: Path(path) for name, _, path in (text.rpartition("=") for text in texts)}
    if "" in weights:
        raise InputError("--weights: write ENCODER=PATH")
    for name, path in weights.items():
        if not path.exists():
            raise InputError(f"--weights {name}={path}: there is nothing there")
    return weights


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
    """Whether a URL's server, or the proxy on the way, answers within five seconds in all with anything but its own failure."""
    answered = []

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=ANSWER_SECONDS).close()
        except HTTPError as error:  # not found, or a login needed: that is for the library to tell
            answered.extend([True] * (error.code < 500))
        except OSError as error:  # the libraries have certificates of their own: one unknown here may be known there
            answered.extend([True] * isinstance(getattr(error, "reason", error), SSLCertVerificationError))
        except (HTTPException, ValueError):  # ValueError: no URL at all
            pass
        else:
            answered.append(True)

    # A thread, because a time limit on a socket bounds neither the look-up of its name nor all its addresses together.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return bool(answered)


@contextmanager
def fetching(what: str, instead: str = BY_WEIGHTS) -> Iterator[None]:
    """A download that fails is one line: a name that is not there, a login that is needed, a line that breaks."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"cannot fetch {what} ({reason}): fetch it elsewhere and {instead}") from None


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

    need_hub(repository, name)
    with fetching(f"{name} of {repository}"):
        return Path(hf_hub_download(repository, name, etag_timeout=ANSWER_SECONDS))


def need_hub(repository: str, name: str = "", instead: str = BY_WEIGHTS) -> None:
    """InputError, within seconds, unless the hub answers when asked for a file; without `name`, for all of a repository.

    `instead` is what to do with what was fetched elsewhere.
    """
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/{repository}/resolve/main/{name or 'config.json'}"
    if constants.HF_HUB_OFFLINE or not reachable(url):
        what = f"{name} of {repository}" if name else repository
        raise InputError(
            f"no weights: {what} is not in the hub's cache on this machine, and the hub cannot be reached: fetch it elsewhere "
            f"and {instead}"
        )


# What transformers reads of a folder besides the weights.
BESIDE_WEIGHTS = (
    "config.json",
    "*processor_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*tokens*.json",
)


def folder_identity(folder: Path, weights: str) -> str:
    """Identity of a transformers folder: SHA-256 over names and contents of the files read; `weights` is their pattern."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in (weights, *BESIDE_WEIGHTS) for path in folder.glob(pattern)}):
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return f"{folder.name}/ sha256:{digest.hexdigest()}"
