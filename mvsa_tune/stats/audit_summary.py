"""The figures of an audit as a page for a person: names and counts, no tweet."""

from collections.abc import Mapping
from typing import Any

from mvsa_tune.errors import some
from mvsa_tune.stats.audit import UNLABELLED

Figures = Mapping[str, Any]
# Headings of the page's columns, and the figure of each kind of duplicate that they show.
SIZES = {
    "groups": "groups", "samples": "samples", "largest": "largest", "labels disagree": "groups_whose_labels_disagree",
}  # fmt: skip
LEAKS = {
    "samples": "with_twin", "share": "share_with_twin", "most have its label": "twins_say_its_label",
    "some have it": "some_twin_has_its_label",
}  # fmt: skip
ACCURACIES = {
    "with one, 95 %": "twins", "of its label": "agree", "of another": "differ", "without one, 95 %": "alone",
}  # fmt: skip


def summary(figures: Figures) -> str:
    """Return the page on `Audit.figures`."""
    parts = [_data(figures), _table("duplicates", figures["duplicates"], SIZES)]
    parts += [_leaks(leaks, part, figures["settings"]["split"]) for part, leaks in figures["leaks"].items()]
    return "\n\n".join([*parts, *([_accuracy(figures["accuracy"])] if figures["accuracy"] else [])])


def _data(figures: Figures) -> str:
    labelled = figures["samples"] - figures["labels"][UNLABELLED]
    labels = [
        f"{name} {count:,}" + (f" ({100 * count / labelled:.1f} %)" if name != UNLABELLED and labelled else "")
        for name, count in figures["labels"].items()
    ]
    unreadable, plain = figures["pictures_unreadable"], figures["pictures_of_one_colour"]
    named = [f" ({some(list(guids))})" if guids else "" for guids in (unreadable, plain)]
    empty, wordless = figures["texts_empty_after_normalisation"], figures["texts_of_punctuation_alone"]
    return (
        f"{figures['data']}: {figures['samples']:,} samples, fingerprint {figures['data_fingerprint'][:12]}\n"
        f"labels     {', '.join(labels)}\n"
        f"encodings  {', '.join(f'{name} {count:,}' for name, count in figures['encodings'].items())}\n"
        f"texts      {len(empty):,} empty after normalisation, {len(wordless):,} more with punctuation alone\n"
        f"pictures   {len(unreadable):,} unreadable{named[0]}, {len(plain):,} of a single colour{named[1]}"
    )


def _leaks(leaks: Figures, part: str, split: str) -> str:
    total, folds = leaks["any"], len(leaks["any"]["folds"])
    if part == UNLABELLED:
        columns = {heading: LEAKS[heading] for heading in ("samples", "share")}
        title = f"The {total['samples']:,} unlabelled samples, against all labelled ones:"
        return f"{title}\n{_table('duplicate labelled', leaks, columns)}"
    together = f", {folds} folds together" if folds > 1 else ""
    return (
        f"The {total['samples']:,} {part} samples of the {split} split{together}:\n"
        f"{_table('duplicate in training', leaks, LEAKS)}\n"
        f"Copying the label of its duplicates in training is correct for {total['twins_say_its_label']:,} samples, "
        f"{100 * total['accuracy_from_copying']:.1f} points of accuracy; at most "
        f"{100 * total['accuracy_from_duplicates_at_most']:.1f} points can come from duplicates."
    )


def _accuracy(accuracy: Figures) -> str:
    kinds = accuracy["by_kind"]
    total, alone = kinds["any"]["every"], kinds["any"]["alone"]["share"]
    end = f"All {total['samples']:,}: {total['share']:.3f}"
    if alone is not None:
        end += f", which is {100 * (total['share'] - alone):+.1f} points from the accuracy on those without a duplicate"
    which = f"{accuracy['sweep']} {accuracy['trial_id']} ({accuracy['configuration']})"
    table = _table("duplicate in training", kinds, ACCURACIES)
    return f"Accuracy of {which}, and number of samples:\n{table}\n{end}."


def _table(title: str, kinds: Figures, columns: Mapping[str, str]) -> str:
    """Return a table with a line per kind of duplicate."""
    rows = [[title, *columns]]
    rows += [[kind, *(_cell(heading, of[name]) for heading, name in columns.items())] for kind, of in kinds.items()]
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[kind.ljust(first), *map(str.rjust, cells, widths)] for kind, *cells in rows]
    return "\n".join("  ".join(cells) for cells in lines)


def _cell(heading: str, value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{100 * value:.1f} %"
    if value["share"] is None:
        return "–"
    interval = " [{:.3f}, {:.3f}]".format(*value["interval"]) if "95 %" in heading else ""
    return f"{value['share']:.3f} of {value['samples']:,}{interval}"
