"""`python -m mvsa_tune COMMAND`, and how every command of the project reports what a user can mend."""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from mvsa_tune.cache import default_folder, write_cache
from mvsa_tune.config import MODALITIES, Parser
from mvsa_tune.dataset import Dataset, read_dataset
from mvsa_tune.encoders import ENCODERS
from mvsa_tune.errors import InputError
from mvsa_tune.vectors import read_vectors

DEFAULT_DATA = Path("data/mvsa_single")


def add_data_flags(parser: Parser) -> None:
    """Add the flags that say where the data and its caches are."""
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help=f"data set (default {DEFAULT_DATA})"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="embedding caches (default DATA/embeddings)")


def report_errors(command: Callable[[], int], program: str) -> int:
    """Run a command; an InputError becomes one line on stderr and exit code 2, Ctrl-C one and 130."""
    try:
        return command()
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; what was finished is kept, and the same command goes on", file=sys.stderr)
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run a command; return the exit code."""
    parser = Parser(prog="python -m mvsa_tune", description="Tools around the sweeps in sweeps/.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bring = commands.add_parser("import", help="make an embedding cache from vectors made elsewhere")
    bring.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help=".npy, or the older scripts' .json; joined in order",
    )
    bring.add_argument("--encoder", required=True, metavar="NAME", help="what to call the encoder that made them")
    bring.add_argument("--modality", required=True, choices=MODALITIES, help="what the vectors are of")
    bring.add_argument(
        "--ids", type=Path, metavar="FILE", help="guids of the rows, one a line (JSON: list order if absent)"
    )
    add_data_flags(bring)
    bring.set_defaults(command=import_vectors)
    options = parser.parse_args(arguments)
    return report_errors(lambda: int(options.command(options)), parser.prog)


def import_vectors(options: Namespace) -> int:
    """`import`: vectors made elsewhere → cache."""
    dataset: Dataset = read_dataset(options.data)
    known = ENCODERS.get(options.encoder)
    cache = write_cache(
        dataset,
        options.cache or default_folder(options.data),
        options.encoder,
        options.modality,
        read_vectors(dataset, options.modality, options.files, options.ids),
        preprocessing=known.preprocessing if known else "unknown: made elsewhere",
        source=f"imported from {', '.join(path.name for path in options.files)}",
    )
    manifest = cache.manifest
    print(f"{cache.path}: {manifest.count:,} vectors of width {manifest.width:,}, {manifest.dtype}")
    return 0
