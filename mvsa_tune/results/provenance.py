"""What a number came from: code, libraries, data, command."""

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
from mvsa_tune.config import MODALITIES, Config
from mvsa_tune.tune.plan import Plan


def provenance(plan: Plan, config: Config) -> Mapping[str, str]:
    """A row's provenance columns."""
    origins = {f"{modality}_vectors": origin for modality, origin in plan.origins(config).items()}
    return (
        {f"{modality}_vectors": "" for modality in MODALITIES}
        | origins
        | {
            "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "split": plan.split.name,
            "data_fingerprint": plan.dataset.fingerprint[:12],
            "code": code_version(),
            "python": platform.python_version(),
            "torch": metadata.version("torch"),
            "ray": metadata.version("ray"),
            "command": shlex.join(["python", *sys.argv]),
        }
    )


@lru_cache(maxsize=1)
def code_version() -> str:
    """The package's version and, in a checkout, its commit (`-dirty` with uncommitted changes)."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return __version__
    commit = described.stdout.strip()
    return f"{__version__}+{commit}" if commit else __version__
