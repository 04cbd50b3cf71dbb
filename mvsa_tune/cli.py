"""`python -m mvsa_tune COMMAND`, and how every command of the project reports errors that a user can correct."""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from mvsa_tune import machine
from mvsa_tune.commands import COMMANDS
from mvsa_tune.config import Parser
from mvsa_tune.errors import InputError


def report_errors(command: Callable[[], int | None], program: str) -> int:
    """Run a command and return its exit code: 2 for an InputError, 130 for a signal, both with one line on stderr."""
    machine.settle()
    with machine.shown_output():
        try:
            with machine.interruptible():
                return command() or 0
        except InputError as error:
            print(f"{program}: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{program}: interrupted; what was finished is kept, and the same command goes on", file=sys.stderr)
            return 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, by default those of the process; return the exit code."""

    def run() -> None:
        options = parse(arguments)
        COMMANDS[options.command][0](options)

    return report_errors(run, "python -m mvsa_tune")


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Parse the name of a command, as `command`, and its flags."""
    parser = Parser(prog="python -m mvsa_tune", description="Tools for the data and the results of the sweeps.")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (run, flags) in COMMANDS.items():
        subparser = parsers.add_parser(name, help=run.__doc__, description=run.__doc__)
        for add_flags in flags:
            add_flags(subparser)
    return parser.parse_args(arguments)
