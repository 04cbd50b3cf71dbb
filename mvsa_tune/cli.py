"""`python -m mvsa_tune COMMAND`, and how every command of the project reports what a user can mend."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from mvsa_tune import machine
from mvsa_tune.cluster.session import add_cluster_flags, address_of
from mvsa_tune.commands import add_uses
from mvsa_tune.config import MODALITIES, Parser
from mvsa_tune.data.dataset import add_data_flags, data_source, read_data
from mvsa_tune.data.duplicates import NEAR
from mvsa_tune.data.splits import split_usage
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.embeddings.cache import Cache, Manifest, Origin, cached_encoders, default_folder, write_cache
from mvsa_tune.embeddings.importing import read_vectors
from mvsa_tune.encoders.registry import ENCODERS, is_encoder
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import is_file_name


def report_errors(command: Callable[[], int], program: str) -> int:
    """Run a command; an InputError becomes one line on stderr and exit code 2, Ctrl-C one and 130, a closed pipe 141."""
    try:
        with machine.heard():
            try:
                return command()
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has enough, as `head` has; what is left of it must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; what was finished is kept, and the same command goes on", file=sys.stderr)
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run a command; return the exit code."""
    return report_errors(lambda: _run(arguments), "python -m mvsa_tune")


def _run(arguments: Sequence[str] | None) -> int:
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
    run = commands.add_parser("embed", help="make embedding caches with encoders")
    run.add_argument("--encoder", required=True, nargs="+", metavar="NAME", help="see `encoders`")
    run.add_argument("--as", dest="name", metavar="NAME", help="what to call the caches in pairs (one encoder)")
    run.add_argument("--weights", type=Path, metavar="PATH", help="file or folder of the weights (one encoder)")
    run.add_argument("--text", choices=list(NORMALISERS), default="reference", help="normalisation of tweets")
    run.add_argument("--device", default="auto", help="cpu, cuda or auto: a GPU where there is one (default)")
    run.add_argument("--batch-size", type=int, metavar="N", help="samples the encoder sees at once (CPU 8, GPU 64)")
    run.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="number format of the cache")
    run.add_argument(
        "--workers", type=int, metavar="N", help="Ray workers (default one a GPU, or one for 8 CPUs; one is no Ray)"
    )
    run.add_argument("--skip-bad", action="store_true", help="go on without the pictures that cannot be read")
    add_data_flags(run)
    add_cluster_flags(run)
    run.set_defaults(command=embed_with_encoders)
    known = commands.add_parser("encoders", help="list the encoders, and the caches that exist")
    add_data_flags(known)
    known.set_defaults(command=list_encoders)
    _add_audit(commands)
    add_uses(commands)
    options = parser.parse_args(arguments)
    return int(options.command(options))


def _add_audit(commands: Any) -> None:
    look = commands.add_parser("audit", help="say what a data set holds: duplicates, labels that disagree, leaks")
    add_data_flags(look, caches=False)
    look.add_argument("--out", type=Path, metavar="DIR", help="audit.json, groups.csv (default results/audit-DATA)")
    look.add_argument("--split", metavar="HOW", default="reference", help=f"which samples train: {split_usage()}")
    look.add_argument(
        "--near", type=int, default=NEAR, metavar="BITS", help=f"of 64 that may differ in like pictures ({NEAR})"
    )
    look.add_argument(
        "--sweep", type=Path, metavar="SWEEP", help="results/NAME: how right it is on what has a duplicate"
    )
    look.add_argument("--config", default="best", metavar="best|ID", help="a configuration of the sweep (default best)")
    look.add_argument("--texts", action="store_true", help="put the tweets into groups.csv")
    look.set_defaults(command=audit)


def audit(options: Namespace) -> int:
    """`audit`: a data set → what to know of it."""
    out = options.out or Path("results") / f"audit-{options.data.resolve().name}"
    if out.resolve().is_relative_to(options.data.resolve()):
        raise InputError(f"--out {out} is in the data folder, which an audit leaves as it is: choose another")
    dataset = read_data(options, needs_labels=False)
    from mvsa_tune.stats.audit import audit_data, write_audit  # pandas and SciPy take a while to import
    from mvsa_tune.stats.audit_summary import summary

    found = audit_data(dataset, options.split, options.near, options.sweep, options.config)
    write_audit(found, out, texts=options.texts)
    print(summary(found.figures))
    print(f"\n{out}: audit.json has every figure and its definition, groups.csv every group")
    return 0


def import_vectors(options: Namespace) -> int:
    """`import`: vectors made elsewhere → cache."""
    dataset = read_data(options)
    vectors = read_vectors(dataset, options.modality, options.files, options.ids)
    known = ENCODERS.get(options.encoder)
    if known and known.widths.get(options.modality) != vectors.shape[1]:
        raise InputError(
            f"{options.encoder} has vectors of {dict(known.widths)}, not {options.modality} vectors of width "
            f"{vectors.shape[1]}: give them another --encoder name"
        )
    if "+" in options.encoder:
        raise InputError(f"--encoder {options.encoder}: a + joins the two names of a pair, and cannot be in one")
    cache = write_cache(
        dataset,
        options.cache or default_folder(dataset.folder),
        options.encoder,
        options.modality,
        vectors,
        Origin("unknown: made elsewhere", f"imported from {', '.join(path.name for path in options.files)}"),
    )
    print("\n".join([*dataset.description(), describe_cache(cache)]))
    return 0


def embed_with_encoders(options: Namespace) -> int:
    """`embed`: pictures and tweets → caches."""
    from mvsa_tune.embeddings.embed import embed
    from mvsa_tune.embeddings.pipeline import Settings

    if (options.weights or options.name) and len(options.encoder) > 1:
        raise InputError("--weights and --as are for one encoder: give one --encoder at a time with them")
    for name in [options.name] if options.name else options.encoder:
        if "+" in name or (options.name and (is_encoder(name) or not is_file_name(name))):
            raise InputError(
                f"{name} cannot stand in a pair IMAGE+TEXT as a name of its own: give another with --as NAME"
            )
    if any(number is not None and number < 1 for number in (options.batch_size, options.workers)):
        raise InputError("--batch-size and --workers must be 1 or more")
    dataset = read_data(options)
    settings = Settings(
        weights=options.weights,
        device=options.device,
        batch_size=options.batch_size,
        dtype=options.dtype,
        text=options.text,
        skip_bad=options.skip_bad,
        workers=options.workers,
        name=options.name or "",
        address=address_of(options),
        nodes=options.nodes,
    )
    print("\n".join(dataset.description()))
    for name in options.encoder:
        for cache in embed(dataset, options.cache or default_folder(dataset.folder), name, settings):
            print(describe_cache(cache))
    return 0


def describe_cache(cache: Cache) -> str:
    """Write for a person what a cache holds."""
    made = cache.manifest
    text = f"{cache.path}: {made.count:,} vectors of width {made.width:,}, {made.dtype}"
    if made.truncated:
        text += f"; {made.truncated:,} texts cut to the encoder's limit"
    if made.skipped:
        text += f"; without {len(made.skipped):,} samples whose picture cannot be read: {some(list(made.skipped))}"
    return text


def list_encoders(options: Namespace) -> int:
    """`encoders`: what there is, what of it can be used here and now, and which caches exist."""
    folder = options.cache or default_folder(data_source(options))
    caches = cached_encoders(folder)
    print(f"caches in {folder}\n\n{'encoder':<22} {'vectors':<22} {'weights':<52} caches")
    for name in dict.fromkeys([*ENCODERS, *caches]):
        made = caches.get(name, [])
        vectors, weights = _about_encoder(name) if name in ENCODERS else _about_caches(name, made)
        # A long name has a line of its own.
        label = name if len(name) <= 22 else f"{name}\n{'':<22}"
        print(f"{label:<22} {vectors:<22} {weights:<52} {', '.join(manifest.modality for manifest in made) or 'none'}")
    print("\nopen names: openclip:ARCH:TAG_OR_FILE  hf:ID_OR_FOLDER[@cls|@mean|@pooler]  torchvision:NAME  timm:NAME")
    return 0


def _about_encoder(name: str) -> tuple[str, str]:
    encoder = ENCODERS[name]
    return _widths(encoder.widths), f"{'here' if encoder.is_local() else 'not here'}: {encoder.source}"


def _about_caches(name: str, made: Sequence[Manifest]) -> tuple[str, str]:
    # "embedded by" itself would say its name twice.
    source = made[0].source.removesuffix(f" by {name}")
    return _widths({manifest.modality: manifest.width for manifest in made}), shorten(source, 52, placeholder=" …")


def _widths(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{modality}: {width}" for modality, width in widths.items())
