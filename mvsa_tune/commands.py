"""The commands that use a finished sweep: predict, export, errors, report, compare."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvsa_tune.data.dataset import LAYOUT_HELP, LAYOUTS, Sample
from mvsa_tune.encoders.weights import weights_by_name
from mvsa_tune.errors import InputError

if TYPE_CHECKING:
    from mvsa_tune.inference.trained import FineTuned, Head
    from mvsa_tune.results.store import Store


def add_uses(commands: Any) -> None:
    """Add the commands that use a finished sweep."""
    label = commands.add_parser("predict", help="label the unlabelled samples with a sweep's best head")
    label.add_argument("--out", type=Path, metavar="FILE", help="the list (default SWEEP/predicted.txt)")
    label.add_argument("--probabilities", action="store_true", help="write FILE's .probabilities.csv too")
    label.add_argument("--layout", choices=list(LAYOUTS), help=LAYOUT_HELP)
    label.set_defaults(command=predict_labels)
    give = commands.add_parser("export", help="write a sweep's best head for use elsewhere")
    give.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to")
    give.add_argument("--onnx", action="store_true", help="as ONNX too, checked in onnxruntime")
    give.set_defaults(command=export_head)
    wrong = commands.add_parser("errors", help="say what a sweep's best configuration gets wrong")
    wrong.add_argument("--texts", action="store_true", help="show the tweets")
    wrong.set_defaults(command=list_errors)
    drawn = commands.add_parser("report", help="write a sweep's report: one page, and its plots")
    drawn.add_argument("--samples", action="store_true", help="show texts and pictures of those most often wrong")
    drawn.set_defaults(command=report_sweep)
    both = commands.add_parser("compare", help="compare two sweeps of the same data and split")
    both.add_argument("sweeps", type=Path, nargs=2, metavar="SWEEP", help="results/A results/B")
    both.set_defaults(command=compare_sweeps)
    for command in (label, give, wrong, drawn):
        command.add_argument("sweep", type=Path, metavar="SWEEP", help="its folder, results/NAME")
        others = ", or another folder of pairs to label" if command is label else ""
        command.add_argument("--data", type=Path, metavar="DIR", help=f"its data, where that has moved{others}")
        if command is drawn:
            continue
        command.add_argument("--config", default="best", metavar="best|ID", help="a configuration (default best)")
        if command is not wrong:
            weights = "weights of encoders, for new pairs and fine-tuned ones"
            command.add_argument("--weights", nargs="+", default=[], metavar="ENCODER=PATH", help=weights)
            command.add_argument("--refit", action="store_true", help="train on all labelled samples, one head a seed")
            command.add_argument("--cache", type=Path, metavar="DIR", help="embedding caches (default DATA/embeddings)")


def predict_labels(options: Namespace) -> int:
    """`predict`: the unlabelled samples → a list of labels."""
    from mvsa_tune.inference.predict import predict
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.summary import choose

    store = Store(options.sweep)
    config = choose(store, options.config)
    weights = weights_by_name(options.weights)
    found = predict(store, config, options.data, options.cache, weights, layout=options.layout, refit=options.refit)
    if found.warning:
        print(found.warning, file=sys.stderr)
    written = found.write(options.out or store.folder / "predicted.txt", probabilities=options.probabilities)
    print(f"{config.id} {config.name}: {len(found.votes)} heads, {_agreement(found.training)}")
    counts = ", ".join(f"{found.tags.count(label):,} {label}" for label in found.labels)
    print(f"{' and '.join(map(str, written))}: {len(found.guids):,} samples labelled ({counts})")
    return 0


def _agreement(training: Mapping[str, Any]) -> str:
    """How a head that was trained again compares with what the sweep recorded."""
    if "epochs" in training:
        return f"trained on all {training['samples']:,} labelled samples for {training['epochs']} epochs"
    if "recorded_predictions" not in training:
        return f"each as of its best epoch ({', '.join(map(str, training['best_epochs']))})"
    differ, of = training["differs_from_recorded"], training["recorded_predictions"]
    return f"trained again: {differ:,} of {of:,} validation predictions differ from the recorded ones"


def export_head(options: Namespace) -> int:
    """`export`: a head → a folder of its own."""
    from mvsa_tune.inference.export import export
    from mvsa_tune.inference.select import chosen_head, chosen_network
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.summary import choose

    store = Store(options.sweep)
    config = choose(store, options.config)
    rows = store.rows()
    mine = rows[rows["trial_id"] == config.id]
    model: Head | FineTuned
    if config.finetuned:
        if options.onnx:
            raise InputError("--onnx: only heads on frozen vectors are written as ONNX")
        model = chosen_network(store, config, options.data, weights_by_name(options.weights), refit=options.refit)
    else:
        model = chosen_head(store, config, options.data, options.cache, refit=options.refit)
    for path in export(model, mine, options.out, onnx=options.onnx):
        print(path)
    print(f"{config.id} {config.name}: {_agreement(model.about['training'])}")
    return 0


def compare_sweeps(options: Namespace) -> int:
    """`compare`: two sweeps → what they differ in, and by how much."""
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.compare import compare

    print(compare(*map(Store, options.sweeps)))
    return 0


def list_errors(options: Namespace) -> int:
    """`errors`: what a configuration gets wrong."""
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.error_analysis import write_errors
    from mvsa_tune.stats.summary import choose

    store = Store(options.sweep)
    samples = _samples(store, options.data) if options.texts else None
    texts = {guid: sample.text for guid, sample in samples.items()} if samples is not None else None
    print(write_errors(store, choose(store, options.config), texts))
    return 0


def report_sweep(options: Namespace) -> int:
    """`report`: a sweep → one page, and its plots."""
    from mvsa_tune.report.page import write_report
    from mvsa_tune.results.store import Store
    from mvsa_tune.stats.analysis import analyse

    store = Store(options.sweep)
    samples = _samples(store, options.data) if options.samples else None
    page, *drawn = write_report(analyse(store), samples=samples)
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, {len(drawn) // 2} plots in {store.folder / 'plots'}/")
    return 0


def _samples(store: "Store", moved: Path | None) -> dict[str, Sample]:
    """The samples of a sweep's data, by guid."""
    from mvsa_tune.results.store import sweep_data

    return {sample.guid: sample for sample in sweep_data(store, moved).samples}
