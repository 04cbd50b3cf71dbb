"""The report of a sweep: one self-contained page, the answer first, and its plots as files. Reads the store alone."""

import base64
import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mvsa_tune.data.dataset import Sample
from mvsa_tune.data.images import UnreadablePictureError, open_picture
from mvsa_tune.errors import counted
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.formats import Table
from mvsa_tune.report import drawing, plots, search_plots
from mvsa_tune.report.drawing import Plot
from mvsa_tune.report.leaderboard import (
    LOG,
    confirmed_analysis,
    dimensions,
    finalist_table,
    short_names,
    trial_counts,
    trial_table,
    trials,
)
from mvsa_tune.report.tables import render, tables
from mvsa_tune.results.schema import STOPPED
from mvsa_tune.stats.analysis import Analysis, verdict
from mvsa_tune.stats.error_analysis import SHOWN, VOTES, by_sample, class_scores, confusion
from mvsa_tune.training.result import TrialResult

CURVES = 4  # configurations whose curves are drawn
THUMBNAIL = 128  # pixels
# The sections of the page, in order: of every sweep, of a grid alone, or of a search alone.
HEADINGS = {
    "answer": "The answer", "questions": "Questions", "tables": "Tables", "finalists": "Finalists, on fresh seeds",
    "leaderboard": "Leaderboard", "progress": "Best so far", "slices": "Accuracy by each setting",
    "parallel": "Parallel coordinates", "curves": "Learning curves", "accuracy": "Accuracy by configuration",
    "grids": "D × lr", "importance": "Importance of each hyperparameter",
    "budget": "Expected accuracy of the best by budget", "classes": "Scores of the best by class",
    "misclassified": "Samples most often misclassified", "reproduce": "How to reproduce",
}  # fmt: skip
GRID_ALONE = ("questions", "tables", "grids", "budget")
SEARCH_ALONE = ("finalists", "leaderboard", "progress", "slices", "parallel")
OPTIONAL = ("slices", "parallel", "grids", "importance", "budget")  # left out where there is nothing to draw
# Whether the same command gives the same numbers.
SAME = "The same command on the same data gives the same numbers."
SAME_BUT_STOPS = (
    "The same command on the same data gives the same numbers to each configuration that is trained to the end. Which "
    "ones are stopped early depends on the order in which trials end; that is the same every time where one runs at a "
    "time (--cpus-per-trial with all CPUs), and none is stopped with --scheduler none."
)
SAME_ALONE = (
    "A search that runs one trial at a time (--cpus-per-trial with all CPUs) gives the same trials and numbers every "
    "time, unless --minutes ends it. Where several run at once, the order in which they end decides what is tried "
    "next; a configuration that is tried again gets the same numbers."
)
PROVENANCE = ("code", "python", "torch", "ray", "device", "matmul")
# The page's style sheet sets these, for light and dark.
COLOURS = {drawing.INK: "currentColor", drawing.FAINT: "var(--line)", drawing.PAPER: "var(--paper)"}
COLOURS |= {colour: f"var(--series-{number})" for number, colour in enumerate(drawing.SERIES, start=1)}


def write_report(analysis: Analysis, *, samples: Mapping[str, Sample] | None = None) -> list[Path]:
    """Write `report.html` and `plots/`; return the paths written, the page first.

    Args:
        analysis: of the sweep.
        samples: by guid, to show text and picture of those most often misclassified; None shows neither.
    """
    folder, drawn = analysis.store.folder, drawings(analysis)
    written = [folder / "report.html"]
    for plot in (plot for section in drawn.values() for plot in section):
        svg, png = (folder / "plots" / f"{plot.name}.{kind}" for kind in ("svg", "png"))
        write_text_whole(svg, plot.svg)
        write_whole(png, lambda file, plot=plot: file.write(plot.png))  # type: ignore[misc]
        written += [svg, png]
    write_text_whole(written[0], page(analysis, drawn, samples))
    for stale in set((folder / "plots").glob("heat-map-*")) - set(written):
        stale.unlink()
    return written


def drawings(analysis: Analysis) -> dict[str, list[Plot]]:
    """Return the plots of each section of the page; empty before a configuration has been trained to its end."""
    if not analysis.ranked:
        return {}
    store, configs = analysis.store, [scored.config for scored in analysis.ranked]
    labels = short_names(configs)
    leaders = {(config.image_encoder, config.text_encoder): config for config in reversed(configs)}.values()
    chosen = sorted(configs, key=lambda config: config not in leaders)[:CURVES]
    results = {labels[config.id]: store.result(config.id) for config in chosen}
    label, best = next(iter(results.items()))
    drawn = {
        "curves": [plots.curves(results), plots.losses(label, best)],
        "accuracy": [plots.accuracies(analysis, labels, wide=wide) for wide in (True, False)],
        "importance": [plots.importance(analysis.importance)] if analysis.importance else [],
        "classes": [plots.confusion(confusion(best), store.manifest.classes)],
    }
    if not store.manifest.space:
        drawn["grids"] = plots.heat_maps(plots.grids(analysis.ranked))
        drawn["budget"] = [plots.budget(analysis.budget)] if len(analysis.budget) > 1 else []
        return drawn
    ended = trials(analysis).dropna(subset="score")
    varied = dimensions(ended) if len(configs) > 1 else {}
    drawn["progress"] = search_plots.best_so_far(ended)
    drawn["slices"] = search_plots.slices(ended, varied, LOG)
    drawn["parallel"] = [search_plots.parallel(ended, varied, LOG)] if varied else []
    return drawn


def page(analysis: Analysis, drawn: Mapping[str, Sequence[Plot]], samples: Mapping[str, Sample] | None) -> str:
    """Return the page with these plots by section."""
    store, confirmed = analysis.store, confirmed_analysis(analysis.store)
    search = bool(store.manifest.space)
    absent = {*(GRID_ALONE if search else SEARCH_ALONE), *(() if confirmed else ["finalists"])}
    absent |= {key for key in OPTIONAL if not drawn.get(key)} | ({"questions"} if not analysis.questions else set())
    script = resources.files("mvsa_tune.report").joinpath("report.js").read_text(encoding="utf-8")
    commands = list(filter(None, store.rows()["command"].unique()))
    repeats = SAME_ALONE if search else SAME if all("--scheduler none" in c for c in commands) else SAME_BUT_STOPS
    headline = confirmed or analysis  # of a search, what its finalists show on fresh seeds
    values: dict[str, Any] = {
        "name": store.folder.name,
        "demo": store.manifest.demo,
        "best": None,
        "search": search,
        "headings": {key: heading for key, heading in HEADINGS.items() if key not in absent},
        "tables": [trial_table(analysis)] if search else tables(analysis),
        "finalists": replace(finalist_table(analysis, confirmed), title="") if confirmed else None,
        "counts": trial_counts(analysis),
        "space": list(store.manifest.space.items()),
        "plots": {section: [replace(plot, svg=inlined(plot)) for plot in of] for section, of in drawn.items()},
        "commands": commands,
        "repeats": repeats,
        "libraries": list(filter(None, store.rows()["matmul"].unique())),
        "provenance": _provenance(analysis),
        "script": Markup(script),
        "script_hash": f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    }
    if analysis.ranked:
        best = store.result(analysis.ranked[0].config.id)
        values |= {
            "best": headline.ranked[0],
            "best_seeds": headline.seeds_of(headline.ranked[0]),
            "facts": _facts(headline),
            "verdict": [re.sub(r"[*`]", "", line) for line in verdict(headline)[1:] if not line.startswith("- ")],
            "questions": [(question.text, question.answer) for question in analysis.questions],
            "undrawn": max(0, len(analysis.ranked) - plots.MOST_LINES),
            "stopped": int(analysis.summary["status"].str.startswith(STOPPED).sum()),
            "common_seeds": analysis.common_seeds,
            "replicates": counted(len(best.best), "replicate"),
            "classes": _classes(analysis, best),
            "misclassified": _misclassified(analysis, best, samples),
            "with_samples": samples is not None,
        }
    return render("report.html.j2", **values)


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    """Return the numbers below the answer, by name."""
    best, winner = analysis.ranked[0], analysis.winner
    facts = [
        (name, f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})")
        for name, interval in (("Best epoch", best.best), ("Last epoch", best.last))
        if interval
    ]
    if winner and winner.index == 0:  # with unequal seeds another one may lead on those that all have
        facts.append(("Corrected for selection", f"{winner.corrected:.3f}"))
        facts.append(("Lead over the mean of all", f"{100 * winner.lead:.1f} points"))
        facts.append(("Lead expected by chance", f"{100 * winner.luck:.1f} points"))
    if analysis.against_best:
        facts.append(("May be the best as well", f"{len(analysis.may_be_best())} of {len(analysis.against_best)}"))
    return facts


def _classes(analysis: Analysis, best: TrialResult) -> Table:
    classes, counts = analysis.store.manifest.classes, confusion(best).sum(axis=1)
    scores = class_scores(best, analysis.store.samples()["label"].to_numpy())
    body = [[label, f"{count:.0f}", *row] for label, count, row in zip(classes, counts, scores, strict=True)]
    return Table("Scores by class", ["class", "samples", "precision", "recall", "F1"], body)


def _misclassified(analysis: Analysis, best: TrialResult, samples: Mapping[str, Sample] | None) -> Table:
    known, classes = analysis.store.samples(), analysis.store.manifest.classes
    scored = by_sample(best, known["guid"].tolist(), known["label"].to_numpy(), classes)
    wrong = scored[scored["wrong"] > 0]
    header = ["guid", *(["picture", "text"] if samples is not None else []), "label", "wrong"]
    header += [f"predicted {label}" for label in classes]
    body = []
    for _, row in wrong.head(SHOWN).iterrows():
        shown = shown_sample(row["guid"], samples) if samples is not None else []
        votes = [str(row[VOTES + label]) for label in classes]
        body.append([row["guid"], *shown, row["label"], f"{row['wrong']} of {row['n']}", *votes])
    return Table(f"{len(body)} of {len(wrong):,} misclassified samples, of {len(scored):,} in total", header, body)


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


def _provenance(analysis: Analysis) -> list[tuple[str, str]]:
    """Return what the results depend on and what they took, by name."""
    manifest, rows = analysis.store.manifest, analysis.store.rows()
    facts = [
        ("data", manifest.data),
        *manifest.reading.items(),
        *((name, text) for name, (_, text) in manifest.facts().items()),
    ]
    facts += analysis.store.trained.extent().items()
    facts += [
        (f"{name} of the rows", "; ".join(filter(None, rows[name].unique())) or "none yet") for name in PROVENANCE
    ]
    return [*facts, ("training time", f"{rows['seconds'].sum():,.0f} s over {len(rows):,} replicates")]


def inlined(plot: Plot) -> Markup:
    """Return a plot's `<svg>` for the page: no address in it, the page's colours and fonts, ids that no other plot has.

    Text from the data was escaped by matplotlib and is left alone.
    """

    def adapt(match: re.Match[str]) -> str:
        tag = match.group().replace("xlink:href", "href").replace("'DejaVu Sans'", "system-ui, sans-serif")
        tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{plot.name}-", tag)
        return re.sub(r"#[0-9a-f]{6}\b", lambda colour: COLOURS.get(colour.group(), colour.group()), tag)

    content = re.sub(r"<metadata>.*?</metadata>", "", plot.svg[plot.svg.index("<svg") :], flags=re.DOTALL)
    opening, content = content.split(">", 1)
    viewbox = re.search(r'viewBox="[\d. ]+"', opening)
    label = html.escape(plot.description, quote=True)
    content = re.sub(r"<[^>]*>", adapt, content).strip()
    svg = f'<svg {viewbox.group() if viewbox else ""} role="img" aria-label="{label}">{content}'
    return Markup(svg)
