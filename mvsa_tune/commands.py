"""The commands of `mvsa-tune`, each a function declared with its flags; slow imports are inside functions."""

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from mvsa_tune.cluster.session import add_cluster_flags, address_of
from mvsa_tune.config import MODALITIES, Config
from mvsa_tune.data.dataset import ENCODING_HELP, LAYOUT_HELP, LAYOUTS, add_data_flags, data_source, read_data
from mvsa_tune.data.duplicates import NEAR
from mvsa_tune.data.splits import split_usage
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.embeddings.cache import Cache, cached_encoders, default_folder
from mvsa_tune.embeddings.draft import Origin, write_cache
from mvsa_tune.embeddings.importing import read_vectors
from mvsa_tune.encoders.registry import ENCODERS, is_encoder
from mvsa_tune.encoders.weights import weights_by_name
from mvsa_tune.errors import InputError, counted, some
from mvsa_tune.files import is_file_name
from mvsa_tune.plugins import add_plugin_flag

if TYPE_CHECKING:
    from mvsa_tune.inference.trained import FineTuned, Head
    from mvsa_tune.results.store import Store

Run = Callable[[Namespace], None]
AddFlags = Callable[[Any], object]  # adds flags to a parser
COMMANDS: dict[str, tuple[Run, tuple[AddFlags, ...]]] = {}


def command(name: str, *flags: AddFlags) -> Callable[[Run], Run]:
    """Declare a function as a command with these flags; its docstring, of one line, becomes the help."""

    def declare(run: Run) -> Run:
        COMMANDS[name] = run, flags
        return run

    return declare


def flag(*names: str, **options: Any) -> AddFlags:
    """Return a function that adds a flag to a parser; the arguments are those of `add_argument`."""
    return lambda parser: parser.add_argument(*names, **options)


SWEEP = flag("sweep", type=Path, metavar="SWEEP", help="folder of the sweep, results/NAME")
BOTH = flag("sweeps", type=Path, nargs=2, metavar="SWEEP", help="results/A results/B")
DATA = flag("--data", type=Path, metavar="DIR", help="its data, if it has moved")
CONFIG = flag("--config", default="best", metavar="best|ID", help="a configuration (default best)")
TEXTS = flag("--texts", action="store_true", help="show the tweets")
SAMPLES = flag("--samples", action="store_true", help="show texts and pictures of those most often wrong")
HEAD = (
    CONFIG,
    flag("--weights", nargs="+", default=[], metavar="ENCODER=PATH", help="for new pairs, and of fine-tuned encoders"),
    flag("--refit", action="store_true", help="train on all labelled samples, one head for each seed"),
    flag("--cache", type=Path, metavar="DIR", help="embedding caches (default: the sweep's, or DATA/embeddings)"),
    add_plugin_flag,
)


@command(
    "import",
    flag("files", nargs="+", type=Path, metavar="FILE", help=".npy, or the older scripts' .json; joined in order"),
    flag("--encoder", required=True, metavar="NAME", help="what to call the encoder that made them"),
    flag("--modality", required=True, choices=MODALITIES, help="what the vectors are of"),
    flag("--ids", type=Path, metavar="FILE", help="guids of the rows, one a line (JSON: list order if absent)"),
    add_data_flags,
)
def import_vectors(options: Namespace) -> None:
    """Make an embedding cache from vectors made elsewhere."""
    dataset = read_data(options)
    vectors = read_vectors(dataset, options.modality, options.files, options.ids)
    widths = dict(ENCODERS[options.encoder].widths) if options.encoder in ENCODERS else {}
    if widths and widths.get(options.modality) != vectors.shape[1]:
        raise InputError(
            f"{options.encoder} has vectors of {widths}, not {options.modality} vectors of width "
            f"{vectors.shape[1]}: choose another --encoder name for these"
        )
    if "+" in options.encoder:
        raise InputError(f"--encoder {options.encoder}: a + joins the two names of a pair, and cannot be in one")
    origin = Origin("unknown: made elsewhere", f"imported from {', '.join(path.name for path in options.files)}")
    folder = options.cache or default_folder(dataset.folder)
    cache = write_cache(dataset, folder, options.encoder, options.modality, vectors, origin)
    print("\n".join([*dataset.description(), _described(cache)]))


@command(
    "embed",
    flag("--encoder", required=True, nargs="+", metavar="NAME", help="see `encoders`"),
    flag("--as", dest="name", default="", metavar="NAME", help="what to call the caches in pairs (one encoder)"),
    flag("--weights", type=Path, metavar="PATH", help="file or folder of the weights (one encoder)"),
    flag("--text", choices=list(NORMALISERS), default="reference", help="normalisation of tweets"),
    flag("--device", default="auto", help="cpu, cuda, or auto: a GPU if there is one (default)"),
    flag("--batch-size", type=int, metavar="N", help="samples the encoder sees at once (CPU 16, GPU 64)"),
    flag("--dtype", choices=["float32", "float16"], default="float32", help="number format of the cache"),
    flag("--workers", type=int, metavar="N", help="Ray workers (default: one for each GPU or 8 CPUs; 1 is no Ray)"),
    flag("--skip-bad", action="store_true", help="go on without the samples that cannot be read"),
    add_data_flags,
    add_cluster_flags,
)
def embed_with_encoders(options: Namespace) -> None:
    """Make embedding caches with encoders."""
    from mvsa_tune.embeddings.embed import embed
    from mvsa_tune.embeddings.pipeline import Settings

    if (options.weights or options.name) and len(options.encoder) > 1:
        raise InputError("--weights and --as are for one encoder: give one --encoder at a time with them")
    for name in [options.name] if options.name else options.encoder:
        if "+" in name or (options.name and (is_encoder(name) or not is_file_name(name))):
            raise InputError(f"{name} cannot be a cache's name in a pair IMAGE+TEXT: choose another with --as NAME")
    if any(number is not None and number < 1 for number in (options.batch_size, options.workers)):
        raise InputError("--batch-size and --workers must be 1 or more")
    dataset = read_data(options)
    fields = ("weights", "device", "batch_size", "dtype", "text", "skip_bad", "workers", "name", "nodes")
    settings = Settings(**{name: getattr(options, name) for name in fields}, address=address_of(options))
    print("\n".join(dataset.description()))
    for encoder in options.encoder:
        for cache in embed(dataset, options.cache or default_folder(dataset.folder), encoder, settings):
            print(_described(cache))


def _described(cache: Cache) -> str:
    """Return what a cache holds, in a line."""
    manifest = cache.manifest
    text = f"{cache.path}: {manifest.count:,} vectors of width {manifest.width:,}, {manifest.dtype}"
    if manifest.truncated:
        text += f"; {manifest.truncated:,} texts cut to the encoder's limit"
    if skipped := list(manifest.skipped):
        text += f"; without {counted(len(skipped), 'sample')} that cannot be read: {some(skipped)}"
    return text


@command("encoders", add_data_flags)
def list_encoders(options: Namespace) -> None:
    """List the encoders, and the caches that exist."""
    folder = options.cache or default_folder(data_source(options))
    caches = cached_encoders(folder)
    print(f"caches in {folder}\n\n{'encoder':<22} {'vectors':<22} {'weights':<52} caches")
    for name in dict.fromkeys([*ENCODERS, *ENCODERS.installed, *caches]):
        cached = {manifest.modality: manifest.width for manifest in caches.get(name, [])}
        if name in ENCODERS:
            where = "here" if ENCODERS[name].is_local() else "not here"
            widths, source = ENCODERS[name].widths, f"{where}: {ENCODERS[name].source}"
        else:  # a name that --encoder or --as gave
            widths, source = cached, shorten(caches[name][0].source.removesuffix(f" by {name}"), 52, placeholder=" …")
        vectors = ", ".join(f"{modality}: {width}" for modality, width in widths.items())
        label = name if len(name) <= 22 else f"{name}\n{'':<22}"  # a long name has a line of its own
        print(f"{label:<22} {vectors:<22} {source:<52} {', '.join(cached) or 'none'}")
    print("\nopen names: openclip:ARCH:TAG_OR_PATH  hf:ID_OR_FOLDER[@cls|@mean|@pooler]  torchvision:NAME  timm:NAME")


@command(
    "audit",
    partial(add_data_flags, caches=False),
    flag("--out", type=Path, metavar="DIR", help="folder for audit.json and groups.csv (default results/audit-DATA)"),
    flag("--split", metavar="HOW", default="reference", help=f"which samples train: {split_usage()}"),
    flag("--near", type=int, default=NEAR, metavar="BITS", help=f"bits of 64 that differ in similar pictures ({NEAR})"),
    flag("--sweep", type=Path, metavar="SWEEP", help="results/NAME: its accuracy on samples that have a duplicate"),
    flag("--config", default="best", metavar="best|ID", help="a configuration of the sweep (default best)"),
    flag("--texts", action="store_true", help="put the tweets into groups.csv"),
)
def audit(options: Namespace) -> None:
    """Report what a data set holds: duplicates, labels that disagree, leaks."""
    out = options.out or Path("results") / f"audit-{options.data.resolve().name}"
    if out.resolve().is_relative_to(options.data.resolve()):
        raise InputError(f"--out {out} is in the data folder, which an audit leaves unchanged: choose another")
    dataset = read_data(options, needs_labels=False)
    from mvsa_tune.stats.audit import audit_data, summary, write_audit

    audited = audit_data(dataset, options.split, options.near, options.sweep, options.config)
    write_audit(audited, out, texts=options.texts)
    print(summary(audited.figures))
    print(f"\n{out}: audit.json has every figure and its definition, groups.csv every group")


def _chosen(options: Namespace) -> tuple["Store", Config]:
    """Return the results of a sweep and the configuration that the flags choose."""
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.summary import choose

    store = Store(options.sweep)
    return store, choose(store, options.config)


@command(
    "predict",
    SWEEP,
    flag("--data", type=Path, metavar="DIR", help="its data, if it has moved, or another folder of pairs to label"),
    flag("--layout", choices=list(LAYOUTS), help=LAYOUT_HELP),
    flag("--encoding", metavar="NAME", default="", help=ENCODING_HELP),
    flag("--out", type=Path, metavar="FILE", help="the list of labels (default SWEEP/predicted.txt)"),
    flag("--probabilities", action="store_true", help="write FILE's .probabilities.csv too"),
    *HEAD,
)
def predict_labels(options: Namespace) -> None:
    """Label the unlabelled samples with a sweep's best head."""
    from mvsa_tune.inference.predict import predict

    (store, config), weights = _chosen(options), weights_by_name(options.weights)
    how = {"layout": options.layout, "encoding": options.encoding, "refit": options.refit}
    predicted = predict(store, config, options.data, options.cache, weights, **how)
    if predicted.warning:
        print(predicted.warning, file=sys.stderr)
    written = predicted.write(options.out or store.folder / "predicted.txt", probabilities=options.probabilities)
    print(f"{config.id} {config.name}: {counted(len(predicted.votes), 'head')}, {_agreement(predicted.training)}")
    counts = ", ".join(f"{predicted.tags.count(label):,} {label}" for label in predicted.labels)
    print(f"{' and '.join(map(str, written))}: {counted(len(predicted.guids), 'sample')} labelled ({counts})")


@command(
    "export",
    SWEEP,
    DATA,
    flag("--out", type=Path, required=True, metavar="FOLDER", help="the folder to write"),
    flag("--onnx", action="store_true", help="as ONNX too, checked in onnxruntime"),
    *HEAD,
)
def export_head(options: Namespace) -> None:
    """Write a sweep's best head for use elsewhere."""
    from mvsa_tune.inference.export import export
    from mvsa_tune.inference.select import chosen_head, chosen_network

    store, config = _chosen(options)
    if config.finetuned and options.onnx:
        raise InputError("--onnx: only heads on frozen vectors are written as ONNX")
    model: Head | FineTuned = (
        chosen_network(store, config, options.data, weights_by_name(options.weights), refit=options.refit)
        if config.finetuned
        else chosen_head(store, config, options.data, options.cache, refit=options.refit)
    )
    rows = store.rows()
    print(*export(model, rows[rows["trial_id"] == config.id], options.out, onnx=options.onnx), sep="\n")
    print(f"{config.id} {config.name}: {_agreement(model.about['training'])}")


def _agreement(training: Mapping[str, Any]) -> str:
    """Return how a head was trained, and how one that was trained again compares with what the sweep recorded."""
    if "epochs" in training:
        return f"trained on all {training['samples']:,} labelled samples for {counted(training['epochs'], 'epoch')}"
    if "recorded_predictions" not in training:
        return f"each as of its best epoch ({', '.join(map(str, training['best_epochs']))})"
    differ, count = training["differs_from_recorded"], training["recorded_predictions"]
    return f"trained again: {differ:,} of {count:,} validation predictions differ from the recorded ones"


@command("errors", SWEEP, DATA, CONFIG, TEXTS, add_plugin_flag)
def list_errors(options: Namespace) -> None:
    """List what a sweep's best configuration gets wrong."""
    from mvsa_tune.results.store import sweep_data
    from mvsa_tune.stats.error_analysis import write_errors

    store, config = _chosen(options)
    samples = sweep_data(store, options.data).samples if options.texts else ()
    print(write_errors(store, config, {sample.guid: sample.text for sample in samples} if options.texts else None))


@command("report", SWEEP, DATA, SAMPLES, add_plugin_flag)
def report_sweep(options: Namespace) -> None:
    """Write a sweep's report: one page, and its plots."""
    from mvsa_tune.report.page import write_report
    from mvsa_tune.results.store import Store, sweep_data
    from mvsa_tune.stats.analysis import analyse

    store = Store(options.sweep)
    samples = sweep_data(store, options.data).samples if options.samples else ()
    by_guid = {sample.guid: sample for sample in samples} if options.samples else None
    page, *plots = write_report(analyse(store), samples=by_guid)
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, {len(plots) // 2} plots in {store.folder / 'plots'}/")


@command("compare", BOTH, add_plugin_flag)
def compare_sweeps(options: Namespace) -> None:
    """Compare two sweeps of the same data and split."""
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.compare import compare

    print(compare(*map(Store, options.sweeps)))


@command(
    "power",
    SWEEP,
    flag("--difference", type=float, default=0.01, metavar="ACC", help="a difference of accuracies (default 0.01)"),
    add_plugin_flag,
)
def power_of_sweep(options: Namespace) -> None:
    """Say what differences a sweep can see, and what a smaller one would take."""
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.analysis import analyse

    if not 0.001 <= options.difference < 1:
        raise InputError(f"--difference {options.difference:g}: give an accuracy from 0.001 to 1, 0.01 for a point")
    power = analyse(Store(options.sweep)).power
    if power is None:
        raise InputError(f"{options.sweep}: two finished configurations on the same validation samples are needed")
    print(power.sees(), power.takes(options.difference), sep="\n")
