"""The flags that say where the data and its caches are, and the data set that they name."""

from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from mvsa_tune.config import Parser
from mvsa_tune.data.dataset import Dataset, read_dataset
from mvsa_tune.data.readers import LAYOUTS, find_layout
from mvsa_tune.errors import InputError

DEFAULT_DATA = Path("data/mvsa_single")


def add_data_flags(parser: Parser, *, caches: bool = True) -> None:
    """Add the flags that say where the data is, and its caches."""
    parser.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="DIR",
        help=f"data set, a folder or a table's file (default {DEFAULT_DATA})",
    )
    parser.add_argument(
        "--layout", choices=list(LAYOUTS), help="the form of --data (default: the one it is found to have)"
    )
    parser.add_argument(
        "--labels", metavar="A,B,…", help="the labels in their order (default: the form's, or the usual one)"
    )
    if caches:
        parser.add_argument(
            "--cache",
            type=Path,
            metavar="DIR",
            help="embedding caches (default DATA/embeddings; a table's: FILE.embeddings)",
        )


def read_data(options: Namespace, *, needs_labels: bool = True) -> Dataset:
    """The data set that the flags of `add_data_flags` name."""
    labels = [name.strip() for name in options.labels.split(",")] if options.labels is not None else []
    return read_dataset(options.data, layout=options.layout, labels=labels, needs_labels=needs_labels)


def data_source(options: Namespace) -> Path:
    """The folder or file that holds the data, if there is any: encoders can be listed without."""
    with suppress(InputError):
        return find_layout(options.data, options.layout)[1]
    return Path(options.data)
