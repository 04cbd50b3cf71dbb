"""`python -m mvsa_tune COMMAND`."""

from argparse import Namespace
from collections.abc import Sequence

from mvsa_tune.commands import COMMANDS
from mvsa_tune.config import Parser
from mvsa_tune.machine import report_errors


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
