"""The report of a sweep: one self-contained page, the answer first, and its plots as files. Reads the store alone."""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Sample
from mvsa_tune.data.images import UnreadablePictureError, open_picture
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.formats import Table
from mvsa_tune.report import plots
from mvsa_tune.report.leaderboard import confirmed_folder
from mvsa_tune.report.plots import Plot
from mvsa_tune.report.tables import tables
from mvsa_tune.results.schema import STOPPED
from mvsa_tune.stats.analysis import Analysis, verdict
from mvsa_tune.stats.error_analysis import SHOWN, VOTES, by_sample, confusion, per_class
from mvsa_tune.training.result import TrialResult

CURVES = 4  # configurations whose curves are drawn
THUMBNAIL = 128  # pixels
NOTHING = "No configuration has been trained to its end yet."
PROVENANCE = ("code", "python", "torch", "ray", "device")
# The page's style sheet sets these, for light and dark.
COLOURS = {plots.INK: "currentColor", plots.FAINT: "var(--line)", plots.PAPER: "var(--paper)"}
COLOURS |= {colour: f"var(--series-{number})" for number, colour in enumerate(plots.SERIES, start=1)}


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor and heading, paragraphs, facts by name, plots, tables, and commands to type."""

    key: str
    heading: str
    text: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    command: str = ""


def write_report(analysis: Analysis, *, samples: Mapping[str, Sample] | None = None) -> list[Path]:
    """Write `report.html` and `plots/`; return the paths written, the page first.

    Args:
        analysis: of the sweep.
        samples: by guid, to show text and picture of those most often misclassified; None shows neither.
    """
    folder, made = analysis.store.folder, sections(analysis, samples)
    written = [folder / "report.html"]
    for plot in (plot for section in made for plot in section.plots):
        svg, png = (folder / "plots" / f"{plot.name}.{kind}" for kind in ("svg", "png"))
        write_text_whole(svg, plot.svg)
        write_whole(png, lambda file, plot=plot: file.write(plot.png))  # type: ignore[misc]
        written += [svg, png]
    environment = Environment(
        loader=PackageLoader("mvsa_tune.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["inlined"] = lambda plot: Markup(inlined(plot))
    demo, best = analysis.store.manifest.demo, next(iter(analysis.ranked), None)
    template = environment.get_template("report.html.j2")
    write_text_whole(written[0], template.render(name=folder.name, sections=made, demo=demo, best=best))
    for stale in set((folder / "plots").glob("heat-map-*")) - set(written):
        stale.unlink()
    return written


def sections(analysis: Analysis, samples: Mapping[str, Sample] | None) -> list[Section]:
    """Return the sections of the page, the answer first."""
    tabled, reproduce = Section("tables", "Tables", tables=tables(analysis)), _reproduce(analysis)
    if not analysis.ranked:
        return [Section("answer", "The answer", [NOTHING]), tabled, reproduce]
    labels = short_names([scored.config for scored in analysis.ranked])
    best = analysis.store.result(analysis.ranked[0].config.id)
    return [
        _answer(analysis),
        _questions(analysis),
        tabled,
        _curves(analysis, labels, best),
        _accuracies(analysis, labels),
        _grids(analysis),
        _importance(analysis),
        _budget(analysis),
        _classes(analysis, best),
        _misclassified(analysis, best, samples),
        reproduce,
    ]


def short_names(configs: Sequence[Config]) -> dict[str, str]:
    """Return each configuration's name by its id, without the words that all of them share."""
    words = {config.id: config.name.split() for config in configs}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    return {trial: " ".join([word for word in name if word not in shared] or name) for trial, name in words.items()}


def _answer(analysis: Analysis) -> Section:
    best, winner = analysis.ranked[0], analysis.winner
    facts = [
        (name, f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})")
        for name, interval in (("Best epoch", best.best), ("Last epoch", best.last))
        if interval
    ]
    if winner:
        facts.append(("Corrected for selection", f"{winner.corrected:.3f}"))
        facts.append(("Lead over the mean of all", f"{100 * winner.lead:.1f} points"))
        facts.append(("Lead expected by chance", f"{100 * winner.luck:.1f} points"))
    if analysis.against_best:
        facts.append(("Not distinguishable from it", f"{len(analysis.tied())} of {len(analysis.against_best)} others"))
    text = [line.replace("**", "") for line in verdict(analysis)[1:] if not line.startswith("- ")]
    confirmed = confirmed_folder(analysis.store.folder)
    if (confirmed / "trials.csv").exists():
        text.append(f"The finalists were trained again on fresh seeds: see the report in {confirmed.name}/.")
    return Section("answer", "The answer", text, facts)


def _questions(analysis: Analysis) -> Section:
    facts = [(question.text, question.answer) for question in analysis.questions]
    none = "None can be answered: no two configurations differ in a single setting and were scored on the same samples."
    return Section("questions", "Questions", [] if facts else [none], facts)


def _curves(analysis: Analysis, labels: Mapping[str, str], best: TrialResult) -> Section:
    configs = [scored.config for scored in analysis.ranked]
    leaders = {(config.image_encoder, config.text_encoder): config for config in reversed(configs)}.values()
    drawn = sorted(configs, key=lambda config: config not in leaders)[1:CURVES]
    results = {labels[configs[0].id]: best} | {labels[config.id]: analysis.store.result(config.id) for config in drawn}
    text = (
        "Mean over replicates at each epoch, in a band of one standard deviation: the best configuration, the best of "
        f"each other pair of encoders, then the next best, {CURVES} at most."
    )
    figures = [plots.curves(results), plots.losses(labels[configs[0].id], best)]
    return Section("curves", "Learning curves", [text], plots=figures)


def _accuracies(analysis: Analysis, labels: Mapping[str, str]) -> Section:
    text = [
        "Cross-fitted accuracy: each half of the samples is scored at the epoch that is best on the other half. Each "
        "95 % interval is of one configuration; a paired test, not their intervals, decides whether two differ."
    ]
    if (more := len(analysis.ranked) - plots.MOST_LINES) > 0:
        text.append(f"Not drawn: the {more:,} worst; summary.csv has them.")
    if stopped := int(analysis.summary["status"].str.startswith(STOPPED).sum()):
        text.append(f"{stopped:,} configurations were stopped early and are not ranked.")
    return Section("accuracy", "Accuracy by configuration", text, plots=[plots.accuracies(analysis, labels)])


def _grids(analysis: Analysis) -> Section:
    grids = plots.grids(analysis.ranked)
    if not grids:
        return Section("grids", "D × lr", ["No finished configurations differ in both D and lr."])
    means = np.concatenate([grid.means.ravel() for grid in grids])
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    maps = [plots.heat_map(f"heat-map-{number}", grid, low, high) for number, grid in enumerate(grids, start=1)]
    text = "Mean cross-fitted accuracy by D and learning rate, all maps on one colour scale. –: nothing was trained."
    return Section("grids", "D × lr", [text], plots=maps)


def _importance(analysis: Analysis) -> Section:
    heading, lines = "Importance of each hyperparameter", analysis.importance
    if not lines:
        return Section("importance", heading, ["Needs at least four configurations and a hyperparameter that varies."])
    text = (
        "Share of the variance of accuracy over the values swept (functional ANOVA). Each line spans the middle 90 % "
        "of draws of seeds and samples."
    )
    return Section("importance", heading, [text], plots=[plots.importance(lines)])


def _budget(analysis: Analysis) -> Section:
    heading = "Expected accuracy of the best by budget"
    if len(analysis.budget) < 2:
        return Section("budget", heading, ["Needs at least two configurations."])
    text = (
        "Expected accuracy of the best when only so many of these configurations are tried, in random order. It "
        "includes the luck of the best."
    )
    return Section("budget", heading, [text], plots=[plots.budget(analysis.budget)])


def _classes(analysis: Analysis, best: TrialResult) -> Section:
    classes, counts = analysis.store.manifest.classes, confusion(best)
    scores = per_class(best, analysis.store.samples()["label"].to_numpy())
    cells = np.char.mod("%.3f", scores.mean(axis=0))
    if len(scores) > 1:
        cells = np.char.add(cells, np.char.mod(" ± %.3f", scores.std(axis=0, ddof=1)))
    body = [
        [label, f"{count:.0f}", *row] for label, count, row in zip(classes, counts.sum(axis=1), cells.T, strict=True)
    ]
    table = Table("Scores by class", ["class", "samples", "precision", "recall", "F1"], body)
    text = (
        f"{analysis.ranked[0].config.name}: mean ± standard deviation over {len(scores)} replicates, each at its best "
        "epoch. The epoch was chosen on these samples, so the scores are biased upwards."
    )
    matrix = plots.confusion(counts, classes)
    return Section("classes", "Scores of the best by class", [text], plots=[matrix], tables=[table])


def _misclassified(analysis: Analysis, best: TrialResult, samples: Mapping[str, Sample] | None) -> Section:
    heading, known = "Samples most often misclassified", analysis.store.samples()
    scored = by_sample(best, known["guid"].tolist(), known["label"].to_numpy(), analysis.store.manifest.classes)
    wrong = scored[scored["wrong"] > 0]
    if wrong.empty:
        return Section("misclassified", heading, ["No replicate of the best configuration misclassifies any sample."])
    votes = [name for name in wrong.columns if name.startswith(VOTES)]
    header = ["guid", *(["picture", "text"] if samples is not None else []), "label", "wrong"]
    header += [f"predicted {name.removeprefix(VOTES)}" for name in votes]
    body = []
    for _, row in wrong.head(SHOWN).iterrows():
        shown = shown_sample(row["guid"], samples) if samples is not None else []
        body.append([row["guid"], *shown, row["label"], f"{row['wrong']} of {row['n']}", *map(str, row[votes])])
    text = f"{len(body)} of the {len(wrong):,} samples (of {len(scored):,}) that at least one replicate misclassifies."
    if samples is None:
        text += " Texts and pictures are private and left out; --samples shows them."
    return Section("misclassified", heading, [text], tables=[Table("", header, body)])


def shown_sample(guid: str, samples: Mapping[str, Sample]) -> list[str]:
    """Return a sample's picture, as a thumbnail inside the page, and its text."""
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
    store, rows = analysis.store, analysis.store.rows()
    commands = _distinct(rows["command"])
    manifest = store.manifest
    facts = [("data", manifest.data), *((name, text) for name, (_, text) in manifest.facts().items())]
    facts += manifest.extent().items()
    facts += [(f"{name} of the rows", "; ".join(_distinct(rows[name])) or "none yet") for name in PROVENANCE]
    facts.append(("training time", f"{rows['seconds'].sum():,.0f} s over {len(rows):,} replicates"))
    text = "The same command on the same data gives the same numbers." if commands else NOTHING
    return Section("reproduce", "How to reproduce", [text], facts, command="\n".join(commands))


def _distinct(column: Iterable[object]) -> list[str]:
    return [str(value) for value in dict.fromkeys(column) if value]


def inlined(plot: Plot) -> str:
    """Return a plot's `<svg>` for the page: no address in it, the page's colours and fonts, ids that no other plot has.

    Text from the data was escaped by matplotlib and is left alone.
    """

    def adapt(match: re.Match[str]) -> str:
        tag = match.group().replace("xlink:href", "href").replace("'DejaVu Sans'", "system-ui, sans-serif")
        tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{plot.name}-", tag)
        return re.sub(r"#[0-9a-f]{6}\b", lambda colour: COLOURS.get(colour.group(), colour.group()), tag)

    drawing = re.sub(r"<metadata>.*?</metadata>", "", plot.svg[plot.svg.index("<svg") :], flags=re.DOTALL)
    opening, drawing = drawing.split(">", 1)
    viewbox = re.search(r'viewBox="[\d. ]+"', opening)
    label = html.escape(plot.description, quote=True)
    drawing = re.sub(r"<[^>]*>", adapt, drawing).strip()
    return f'<svg {viewbox.group() if viewbox else ""} role="img" aria-label="{label}">{drawing}'
