"""The program `mvsa-tune COMMAND`, which is `python -m mvsa_tune COMMAND`, too."""

import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence

import mvsa_tune
from mvsa_tune.commands import COMMANDS
from mvsa_tune.config import Parser
from mvsa_tune.errors import InputError, did_you_mean
from mvsa_tune.machine import report_errors
from mvsa_tune.sweeps import SWEEPS

PROGRAM = "mvsa-tune"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, by default those of the process; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments

    def run() -> int | None:
        options = parse(arguments)
        sweep = SWEEPS.get(options.command)
        return sweep.run(options) if sweep else COMMANDS[options.command][0](options)

    return report_errors(run, " ".join([PROGRAM, *(name for name in arguments[:1] if name in {*SWEEPS, *COMMANDS})]))


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse the name of a command, as `command`, and its flags."""
    name, flags = (arguments[0], arguments[1:]) if arguments else ("--help", ())
    if name in SWEEPS:
        options = SWEEPS[name].parse(flags, f"{PROGRAM} {name}")
    elif name in COMMANDS:
        run, functions = COMMANDS[name]
        parser = Parser(prog=f"{PROGRAM} {name}", description=run.__doc__, allow_abbrev=False)
        for add_flags in functions:
            add_flags(parser)
        options = parser.parse_args(flags)
    elif name.startswith("-"):
        _list_commands(arguments)
    else:
        likely = did_you_mean(name, [*SWEEPS, *COMMANDS])
        raise InputError(f"unknown command {name}{likely} (--help lists all)")
    options.command = name
    return options


def _list_commands(arguments: Sequence[str]) -> None:
    """Print what the program's own flags ask for, and end."""
    lines = [mvsa_tune.__doc__ or ""]
    lines += ["", "sweeps:", *(f"  {name:<8}  {sweep.description}" for name, sweep in SWEEPS.items())]
    lines += ["", "data and results:", *(f"  {name:<8}  {run.__doc__}" for name, (run, _) in COMMANDS.items())]
    parser = Parser(
        prog=PROGRAM,
        usage="%(prog)s COMMAND [FLAGS]",
        description="\n".join([*lines, "", f"{PROGRAM} COMMAND --help shows a command's flags."]),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {mvsa_tune.__version__}")
    parser.parse_args(arguments or ["--help"])
