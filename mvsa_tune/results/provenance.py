"""Where a number comes from: code, libraries, data, command."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from mvsa_tune import __version__
from mvsa_tune.config import MODALITIES


def provenance(split: str, data_fingerprint: str, origins: Mapping[str, str]) -> dict[str, str]:
    """Return a row's provenance columns.

    Args:
        split: the split's name.
        data_fingerprint: of the data set.
        origins: by modality, what identifies the vectors or the weights that the trial started from.
    """
    return {
        **{f"{modality}_vectors": origins.get(modality, "") for modality in MODALITIES},
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "split": split,
        "data_fingerprint": data_fingerprint[:12],
        "code": code_version(),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "ray": metadata.version("ray"),
        "command": shlex.join(["python", *sys.argv]),
    }


@lru_cache(maxsize=1)
def code_version() -> str:
    """Return the package's version and, in a checkout, its commit (`-dirty` with uncommitted changes)."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return __version__
    commit = described.stdout.strip()
    return f"{__version__}+{commit}" if commit else __version__
