"""The parts of a sweep's report, the answer first: what each says, shows, or why it shows nothing."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Sample
from mvsa_tune.data.images import UnreadablePictureError, open_picture
from mvsa_tune.formats import Table
from mvsa_tune.report import plots
from mvsa_tune.report.grids import grids
from mvsa_tune.report.leaderboard import confirmed_folder
from mvsa_tune.report.plots import Plot
from mvsa_tune.report.tables import tables
from mvsa_tune.stats.analysis import Analysis, verdict
from mvsa_tune.stats.error_analysis import SHOWN, VOTES, by_sample, confusion, per_class
from mvsa_tune.training.result import TrialResult

CURVES = 4  # configurations whose curves are drawn
THUMBNAIL = 128  # pixels
NOTHING = "No configuration has been trained to its end yet."
WORKED_WITH = ("code", "python", "torch", "ray", "device")


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: its anchor.
        heading: of the section.
        text: its paragraphs; where there is nothing to show, why.
        facts: what is known, by name.
        plots: its figures.
        tables: its tables.
        command: what to type.
    """

    key: str
    heading: str
    text: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    command: str = ""


def sections(analysis: Analysis, samples: Mapping[str, Sample] | None) -> list[Section]:
    """All parts, the answer first."""
    labels = short_names([one.config for one in analysis.ranked])
    best = analysis.store.result(analysis.ranked[0].config.id) if analysis.ranked else None
    return [
        _answer(analysis),
        _questions(analysis),
        Section("tables", "Tables", tables=tables(analysis)),
        _curves(analysis, labels, best),
        _accuracies(analysis, labels),
        _grids(analysis),
        _importance(analysis),
        _budget(analysis),
        _best(analysis, best),
        _mistakes(analysis, best, samples),
        _reproduce(analysis),
    ]


def short_names(configs: Sequence[Config]) -> dict[str, str]:
    """A configuration's name by its id, without what all of them share."""
    words = {config.id: config.name.split() for config in configs}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    return {
        trial: " ".join(word for word in own if word not in shared) or " ".join(own) for trial, own in words.items()
    }


def _answer(analysis: Analysis) -> Section:
    if not analysis.ranked:
        return Section("answer", "The answer", [NOTHING])
    first, found = analysis.ranked[0], analysis.winner
    facts = []
    for name, one in (("Best epoch", first.best), ("Last epoch", first.last)):
        if one:
            facts.append((name, f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"))
    if found:
        facts.append(("Corrected for being chosen", f"{found.corrected:.3f}"))
        facts.append(("Lead over the mean of all", f"{100 * found.lead:.1f} points"))
        facts.append(("Lead by luck alone", f"{100 * found.luck:.1f} points"))
    if analysis.against_best:
        facts.append(("Cannot be told from it", f"{len(analysis.tied())} of {len(analysis.ranked) - 1} others"))
    told = [line.replace("**", "") for line in verdict(analysis)[1:] if not line.startswith("- ")]
    if (confirmed_folder(analysis.store.folder) / "trials.csv").exists():
        told.append(
            f"Its finalists were trained again on fresh seeds: {confirmed_folder(analysis.store.folder).name}/ has their report."
        )
    return Section("answer", "The answer", told, facts)


def _questions(analysis: Analysis) -> Section:
    asked = [(one.text, one.answer) for one in analysis.questions]
    why = "No two configurations differ in one thing alone on the same samples, so that none of the questions can be answered."
    return Section("questions", "Questions", [] if asked else [why], asked)


def _curves(analysis: Analysis, labels: Mapping[str, str], best: TrialResult | None) -> Section:
    if best is None:
        return Section("curves", "Learning curves", [NOTHING])
    seen: set[object] = set()
    order = []
    for one in analysis.ranked:  # the best of each encoders, then the others
        key = (one.config.image_encoder, one.config.text_encoder)
        order.append((key in seen, one))
        seen.add(key)
    order.sort(key=lambda pair: pair[0])
    chosen = [one.config.id for _, one in order[:CURVES]]
    drawn = {labels[trial]: analysis.store.result(trial) for trial in chosen if trial != analysis.ranked[0].config.id}
    first = labels[analysis.ranked[0].config.id]
    text = (
        "Mean over replicates at each epoch, in a band of one standard deviation: the best configuration, the best of each other pair of "
        f"encoders, then the next best, {CURVES} in all."
    )
    return Section(
        "curves", "Learning curves", [text], plots=[plots.curves({first: best, **drawn}), plots.losses(first, best)]
    )


def _accuracies(analysis: Analysis, labels: Mapping[str, str]) -> Section:
    heading = "Accuracy by configuration"
    if not analysis.ranked:
        return Section("accuracy", heading, [NOTHING])
    text = "Cross-fitted accuracy: each half of the samples at the epoch that is best on the other. Intervals are of 95 %, each for itself; whether two can be told apart is a paired test's to say."
    more = len(analysis.ranked) - plots.MOST_LINES
    beyond = [f"Not drawn: {more:,} that are worse; summary.csv has them."] if more > 0 else []
    halted = [f"{len(analysis.stopped):,} were stopped early, and are no rivals."] if analysis.stopped else []
    return Section("accuracy", heading, [text, *beyond, *halted], plots=[plots.accuracies(analysis, labels)])


def _grids(analysis: Analysis) -> Section:
    found = grids(analysis.ranked)
    if not found:
        return Section(
            "grids", "D × lr", ["D and lr do not both vary among the configurations that were trained to their end."]
        )
    every = np.concatenate([one.means.ravel() for one in found])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    drawn = [plots.heat_map(f"heat-map-{place}", one, low, high) for place, one in enumerate(found, start=1)]
    text = (
        "Mean cross-fitted accuracy by D and learning rate; one scale for all maps. A dash: nothing was trained there."
    )
    return Section("grids", "D × lr", [text], plots=drawn)


def _importance(analysis: Analysis) -> Section:
    heading = "Importance of each hyperparameter"
    if not analysis.importance:
        return Section(
            "importance",
            heading,
            ["It takes four configurations at least, and a hyperparameter that varies among them."],
        )
    text = "Share of the variance of accuracy over what was swept (functional ANOVA). The line holds nine of ten draws of seeds and samples."
    return Section("importance", heading, [text], plots=[plots.importance(analysis.importance)])


def _budget(analysis: Analysis) -> Section:
    heading = "What a smaller budget would have shown"
    if len(analysis.budget) < 2:
        return Section("budget", heading, ["It takes two configurations at least."])
    text = "Expected accuracy of the best of so many of these configurations, tried in any order. It is what would be shown, luck included."
    return Section("budget", heading, [text], plots=[plots.budget(analysis.budget)])


def _best(analysis: Analysis, best: TrialResult | None) -> Section:
    heading = "What the best gets right, by class"
    if best is None:
        return Section("classes", heading, [NOTHING])
    classes, labels = analysis.store.manifest.classes, analysis.store.samples()["label"].to_numpy()
    scores = per_class(best, labels)
    mean, spread = scores.mean(axis=0), scores.std(axis=0, ddof=1) if len(scores) > 1 else None
    counts = confusion(best)
    body = []
    for place, label in enumerate(classes):
        cells = [
            f"{mean[kind, place]:.3f}" + (f" ± {spread[kind, place]:.3f}" if spread is not None else "")
            for kind in range(3)
        ]
        body.append([label, f"{counts[place].sum():.0f}", *cells])
    table = Table("Scores by class", ["class", "samples", "precision", "recall", "F1"], body)
    text = (
        f"{analysis.ranked[0].config.name}: means over {len(scores)} replicates (± standard deviation), each at its best epoch, which was chosen on these "
        "samples: they read high."
    )
    return Section("classes", heading, [text], plots=[plots.confusion(counts, classes)], tables=[table])


def _mistakes(analysis: Analysis, best: TrialResult | None, samples: Mapping[str, Sample] | None) -> Section:
    heading = "Samples most often wrong"
    if best is None:
        return Section("mistakes", heading, [NOTHING])
    known = analysis.store.samples()
    found = by_sample(best, known["guid"].tolist(), known["label"].to_numpy(), analysis.store.manifest.classes)
    wrong = found[found["wrong"] > 0]
    if wrong.empty:
        return Section("mistakes", heading, ["No replicate of the best errs on any sample."])
    votes = [name for name in wrong.columns if name.startswith(VOTES)]
    header = ["guid", *(["picture", "text"] if samples is not None else []), "label", "wrong"]
    header += [f"said {name.removeprefix(VOTES)}" for name in votes]
    body = []
    for _, row in wrong.head(SHOWN).iterrows():
        shown = shown_sample(row["guid"], samples) if samples is not None else []
        counts = [row["label"], f"{row['wrong']} of {row['n']}", *(str(row[name]) for name in votes)]
        body.append([row["guid"], *shown, *counts])
    hidden = (
        "" if samples is not None else " Texts and pictures are left out, as they are people's: `--samples` shows them."
    )
    text = f"{len(body)} of {len(wrong):,} samples that some replicate gets wrong, of {len(found):,}.{hidden}"
    return Section("mistakes", heading, [text], tables=[Table("", header, body)])


def shown_sample(guid: str, samples: Mapping[str, Sample]) -> list[str]:
    """A sample's picture, as a thumbnail in the page itself, and its text."""
    if guid not in samples:
        return ["", "not in the data"]
    sample = samples[guid]
    try:
        picture = open_picture(sample.picture, THUMBNAIL)
    except UnreadablePictureError as error:
        return [f"cannot be read: {error}", sample.text]
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=80)
    tag = Markup('<img src="data:image/jpeg;base64,{}" width="{}" height="{}" alt="picture of {}">')
    return [tag.format(base64.b64encode(jpeg.getvalue()).decode(), *picture.size, guid), sample.text]


def _reproduce(analysis: Analysis) -> Section:
    store = analysis.store
    rows = store.rows()
    commands = _each(rows["command"])
    manifest = store.manifest
    facts = [("data", manifest.data), *((name, text) for name, (_, text) in manifest.facts().items())]
    facts += manifest.extent().items()
    facts += [(f"{name} of the rows", "; ".join(_each(rows[name])) or "none yet") for name in WORKED_WITH]
    seconds = float(rows["seconds"].sum())
    facts.append(("training time", f"{seconds:,.0f} s over {len(rows):,} replicates"))
    text = "The same command on the same data gives the same numbers." if commands else NOTHING
    return Section("reproduce", "How to reproduce", [text], facts, command="\n".join(commands))


def _each(column: Iterable[object]) -> list[str]:
    """The values of a column, each once."""
    return [str(value) for value in dict.fromkeys(column) if value]
