"""A file that says what is swept: YAML with a key for each flag, which becomes the flags (`--config`), and back."""

import json
import math
from argparse import Namespace
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mvsa_tune.config import Parser, flag
from mvsa_tune.errors import InputError, did_you_mean
from mvsa_tune.formats import short

NOT_IN_FILE = ("config", "print_config", "help", "help_all")


def arguments_of(values: Mapping[str, Any]) -> list[str]:
    """Return the command line that a mapping stands for, as `["--D", "128", "256", "--demo"]`.

    Args:
        values: by a flag's name, with `_` or `-`: a value, several in a list, `NAME=VALUE` pairs in a mapping, True for
            a flag without a value; False and None leave the flag out.
    """
    arguments = []
    for name, value in values.items():
        if value is None or value is False:
            continue
        arguments.append(flag(name))
        if isinstance(value, Mapping):
            arguments += [f"{key}={item}" for key, item in value.items()]
        elif isinstance(value, Iterable) and not isinstance(value, str):
            arguments += map(str, value)
        elif value is not True:
            arguments.append(str(value))
    return arguments


def read_sweep_file(path: Path, parser: Parser, command: str) -> list[str]:
    """Return the flags that a file stands for; InputError names the file and the line or the key that is wrong."""
    import yaml  # the help need not wait for it

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InputError(f"{path}{f', line {mark.line + 1}' if mark else ''}: not valid YAML: {reason}") from None
    if not isinstance(values, dict | None):
        raise InputError(f"{path}: write a flag and its value on each line, as in D: [128, 256]")
    values = {str(key).replace("-", "_"): value for key, value in (values or {}).items()}
    if (other := values.pop("command", command)) != command:
        raise InputError(f"{path} is for `mvsa-tune {other}`, not for `{command}`")
    for key, value in values.items():
        _check(f"{path}: {key}", key, value, parser)
    arguments = arguments_of(values)
    try:
        parser.parse_args(arguments)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return arguments


def _check(where: str, key: str, value: Any, parser: Parser) -> None:
    """Check what flags cannot: InputError if there is no such key, or the value is of another kind."""
    keys = _keys(parser)
    if key not in keys:
        raise InputError(f"{where}: unknown key{did_you_mean(key, [*keys, 'command'])}")
    if value is None:
        return
    if keys[key].nargs == 0 and not isinstance(value, bool):
        raise InputError(f"{where}: {value}: write true or false")
    if keys[key].nargs != 0 and isinstance(value, bool):
        raise InputError(f"{where}: a value is missing; yes, no, on and off must be in quotes")
    if isinstance(value, list) and len(value) > 1 and keys[key].nargs is None:
        raise InputError(f"{where}: {value}: give one value")


def _keys(parser: Parser) -> dict[str, Any]:
    """Return the flags that a file can have, by key."""
    flags = {name.removeprefix("--").replace("-", "_"): action for name, action in parser.flags().items()}
    return {key: action for key, action in flags.items() if key not in NOT_IN_FILE}


def sweep_file(options: Namespace, parser: Parser, command: str) -> str:
    """Return the file whose flags are these options, defaults included."""
    heading = f"# `mvsa-tune {command} --config FILE` repeats this sweep; flags given with it win."
    lines = [heading, f"command: {command}"]
    for key, action in _keys(parser).items():
        value = getattr(options, action.dest)
        if action.nargs == 0:
            lines += [f"{key}: true"] * (value == action.const)
        elif value not in (None, "", []):
            lines.append(_line(key, [_text(item) for item in (value if isinstance(value, list) else [value])]))
    return "\n".join([*lines, ""])


def _line(key: str, words: list[str]) -> str:
    """Write a key with its values, as plain as YAML can be read back."""
    import yaml

    line = f"{key}: {words[0]}" if len(words) == 1 else f"{key}: [{', '.join(words)}]"
    with suppress(yaml.YAMLError, ValueError):
        if arguments_of(yaml.safe_load(line)) == [flag(key), *words]:
            return line
    return f"{key}: {json.dumps(words if len(words) > 1 else words[0], ensure_ascii=False)}"


def _text(value: object) -> str:
    """Return a value as the text that a person would write, without loss."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    return text if float(text := short(value)) == value else repr(value)
