"""A copy of a results folder elsewhere (`--storage`): on a shared path, or wherever fsspec writes (s3://, gs://, …)."""

import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import fsspec

from mvsa_tune.errors import InputError
from mvsa_tune.results.schema import identities


class Mirror(AbstractContextManager["Mirror"]):
    """The copy of a results folder at `STORAGE/NAME`, for the time of a `with`."""

    def __init__(self, folder: Path, storage: str) -> None:
        """Bring a folder that is there alone; raise InputError if the copy cannot be used or has rows of its own."""
        self.folder, self.url, self.problem = folder, f"{storage.rstrip('/')}/{folder.name}", ""
        self.copied: dict[Path, tuple[int, int]] = {}  # time and size of each file when it was copied
        try:
            self.files, self.root = fsspec.core.url_to_fs(self.url)
            self.files.makedirs(self.root, exist_ok=True)
            names = self.files.find(self.root)
            if any(".." in name.removeprefix(self.root).split("/") for name in names):
                raise ValueError("a name in it leads out of the folder")
            if not folder.exists() and names:
                part = folder.with_name(f".{folder.name}.part")
                shutil.rmtree(part, ignore_errors=True)  # what a kill has left
                self.files.get(self.root, str(part), recursive=True)
                part.rename(folder)
            elif self.files.exists(f"{self.root}/trials.csv"):
                rows = identities((folder / "trials.csv").read_bytes())
                if more := identities(self.files.cat_file(f"{self.root}/trials.csv")) - rows:
                    raise ValueError(f"it has {len(more)} rows that {folder} lacks; move that away or change --name")
        except Exception as error:  # each file system has exceptions of its own
            raise InputError(f"--storage: {self.url} cannot be used: {error}") from None

    def update(self) -> None:
        """Copy new and changed files, each whole, and the rows last, as they were before the others were read."""
        try:
            paths = [path for path in self.folder.rglob("*") if "/." not in str(path.relative_to(self.folder.parent))]
            states = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.is_file()}
            rows = {path: path.read_bytes() for path in states if path.name == "trials.csv"}
            for path in sorted(states, key=rows.__contains__):
                if self.copied.get(path) != states[path] and path.exists():  # a checkpoint may have gone meanwhile
                    target = f"{self.root}/{path.relative_to(self.folder)}"
                    self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
                    with self.files.transaction:
                        self.files.pipe_file(target, rows.get(path) or path.read_bytes())
                    self.copied[path] = states[path]
            self.problem = ""
        except Exception as error:
            if not self.problem:
                print(f"{self.url} cannot be written ({error}); the next update tries again", file=sys.stderr)
            self.problem = str(error) or type(error).__name__

    def __exit__(self, *exception: object) -> None:
        """Update the copy; raise InputError if that fails."""
        self.update()
        if self.problem:
            raise InputError(f"{self.url} cannot be written ({self.problem}); the results are whole in {self.folder}")
