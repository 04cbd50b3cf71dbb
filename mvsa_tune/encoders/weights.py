"""Where the weights of encoders are: in a file, in a cache on this machine, or on a server."""

import os
import re
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar

from mvsa_tune.errors import InputError

Result = TypeVar("Result")
ANSWER_SECONDS = 5  # how long a server may take to answer
GIVE_WEIGHTS = "give its path with --weights PATH"
# To these the hub moved models that had no owner, such as roberta-base: older caches have them under that name.
LATER_OWNERS = {"FacebookAI", "albert", "almanach", "distilbert", "google-bert", "openai-community", "xlnet"}


def weights_by_name(texts: Sequence[str]) -> dict[str, Path]:
    """Read texts `ENCODER=PATH`; return path by encoder. InputError for another form, or a path that does not exist."""
    weights = {name: Path(path) for name, _, path in (text.rpartition("=") for text in texts)}
    if "" in weights:
        raise InputError("--weights: write ENCODER=PATH")
    for name, path in weights.items():
        if not path.exists():
            raise InputError(f"--weights {name}={path}: there is no such file or folder")
    return weights


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without what a terminal would take for commands."""
    line = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().partition("\n")[0]
    return "".join(sign if sign.isprintable() else "?" for sign in line)


def fetch(
    what: str,
    server: str,
    ask: Callable[[], object],
    download: Callable[[], Result],
    instead: str = GIVE_WEIGHTS,
    seconds: float = ANSWER_SECONDS,
) -> Result:
    """Return the result of `download`, called only after the server has answered `ask`.

    A download from a server that does not answer would go on trying for minutes.

    Raises:
        InputError: `ask` raises or takes longer than `seconds`, the download fails, or nobody may be asked; it says
            what to do `instead`.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise InputError(f"no weights: {what} is not on this machine, and HF_HUB_OFFLINE is set: {instead}")
    try:
        # A thread: the time limit of a socket bounds neither the look-up of its name nor all its addresses together.
        with ThreadPool(1) as pool:
            pool.apply_async(ask).get(seconds)
    except Exception as error:
        raise InputError(
            f"no weights: {what} is not on this machine, and {server} cannot be reached "
            f"({first_line(error) or f'no answer in {seconds:g} seconds'}): fetch it elsewhere and {instead}"
        ) from None
    try:
        return download()
    except Exception as error:  # no such name, a login is needed, the connection breaks: each library has its errors
        raise InputError(f"cannot fetch {what} ({first_line(error)}): fetch it elsewhere and {instead}") from None


def fetch_from_hub(
    repository: str, name: str, download: Callable[[], Result], instead: str = GIVE_WEIGHTS, what: str = ""
) -> Result:
    """`fetch` from the hub or a mirror, heeding huggingface_hub's environment variables.

    A mirror has ten seconds to answer, or HF_HUB_ETAG_TIMEOUT, which is for the hub, too. The library's own time limit
    is not enough: after it `hf_hub_download` tries several times more, a minute each.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    is_mirror = "HF_ENDPOINT" in os.environ
    server = f"the mirror {constants.ENDPOINT}" if is_mirror else "the hub"
    is_patient = is_mirror or "HF_HUB_ETAG_TIMEOUT" in os.environ
    seconds = constants.HF_HUB_ETAG_TIMEOUT if is_patient else ANSWER_SECONDS

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(repository, name), timeout=seconds)
        except HfHubHTTPError as error:  # "not found" and "log in" are answers too: the download's error tells more
            if error.response.status_code in (405, 501):
                raise ConnectionError("it answers no HEAD requests, which huggingface_hub needs") from None
            if error.response.status_code >= 500:
                raise

    return fetch(what or f"{name} of {repository}", server, ask, download, instead, seconds)


def cached(repository: str, name: str) -> Path | None:
    """Return the path of a hub's file in its cache on this machine; None if it is not cached."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, name)
    return Path(path) if isinstance(path, str) else None


def cached_id(repository: str) -> str:
    """Return the id that a hub's model has in the cache: its own, or the one from before it had an owner."""
    owner, _, name = repository.rpartition("/")
    is_older = owner in LATER_OWNERS and not cached(repository, "config.json") and cached(name, "config.json")
    return name if is_older else repository


def hub_file(repository: str, name: str) -> Path:
    """Return the path of a hub's file, fetched if it is not in the cache."""
    from huggingface_hub import hf_hub_download

    return cached(repository, name) or fetch_from_hub(repository, name, lambda: Path(hf_hub_download(repository, name)))
