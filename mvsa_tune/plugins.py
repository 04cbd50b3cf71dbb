"""Encoders and heads from outside: from Python files (`--plugin`) and from installed packages (docs/plugins.md)."""

import argparse
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mvsa_tune.errors import InputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Entry = TypeVar("Entry")
LOADED: list[Path] = []  # the files that this process has run; its workers run them too


class Registry(dict[str, Entry]):
    """Entries by name: the built-in and the registered ones, and those that entry points of `group` name.

    The object of an entry point is imported when its name is first looked up, so that nothing else waits for it.
    """

    def __init__(self, group: str, kind: type, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.group, self.kind = group, kind

    @cached_property
    def installed(self) -> "dict[str, EntryPoint]":
        """The entry points by name; InputError if the name of one is taken."""
        from importlib.metadata import entry_points

        points: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in points or dict.__contains__(self, point.name):
                raise InputError(f"plug-in {point.name} = {point.value}: another in {self.group} has this name")
            points[point.name] = point
        return points

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.installed

    def __missing__(self, name: str) -> Entry:
        point = self.installed[name]
        try:
            self._set(name, point.load())
        except Exception as error:
            raise _failure(f"plug-in {name} = {point.value}", error) from None
        return self[name]

    def register(self, name: str, entry: Entry) -> None:
        """Add an entry; InputError if the name is taken or unfit, or the entry is not of the registry's kind."""
        if name in self:
            raise InputError(f"{name}: there is one of this name in {self.group} already; register yours under another")
        self._set(name, entry)

    def _set(self, name: str, entry: Entry) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise InputError(f"{name!r}: use letters, digits, -, _ and ., beginning with a letter or digit")
        if not isinstance(entry, self.kind):
            raise InputError(f"{name}: {entry!r} is not of type {self.kind.__name__}")
        self[name] = entry


def _failure(plugin: str, error: Exception) -> InputError:
    reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}".partition("\n")[0]
    return InputError(f"{plugin}: {reason}")


def load_plugins(files: Iterable[Path]) -> None:
    """Run Python files that register encoders or heads, each once in a process; InputError if one fails."""
    for path in (file.absolute() for file in files):
        if path in LOADED:
            continue
        spec = importlib.util.spec_from_file_location(f"mvsa_tune_plugin_{path.stem}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise InputError(
                f"--plugin {path}: there is no such Python file (write --plugin after all other arguments)"
            )
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise _failure(f"--plugin {path}", error) from None
        LOADED.append(path)


class _LoadAtOnce(argparse.Action):
    """Runs the files as soon as the flag is read: names are checked later."""

    def __call__(self, parser: Any, options: Any, values: Any, flag: Any = None) -> None:
        load_plugins(values)
        setattr(options, self.dest, values)


def add_plugin_flag(parser: argparse._ActionsContainer) -> None:
    """Add `--plugin`."""
    doc = "Python files that register encoders or heads (docs/plugins.md)"
    parser.add_argument("--plugin", type=Path, nargs="+", metavar="FILE.py", action=_LoadAtOnce, help=doc)
