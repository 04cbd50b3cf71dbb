"""The figures of an audit as a page for a person: names and counts, no tweet."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvsa_tune.errors import some
from mvsa_tune.stats.audit import UNLABELLED

Figures = Mapping[str, Any]


def summary(figures: Figures) -> str:
    """Return the page on `Audit.figures`."""
    counts = figures["duplicates"].values()
    duplicates = {
        "groups": [f"{count['groups']:,}" for count in counts],
        "samples": [f"{count['samples']:,}" for count in counts],
        "largest": [f"{count['largest']:,}" for count in counts],
        "labels disagree": [f"{count['groups_whose_labels_disagree']:,}" for count in counts],
    }
    parts = [_data(figures), _table("duplicates", figures["duplicates"], duplicates)]
    parts += [_leaks(leaks, part, figures["settings"]["split"]) for part, leaks in figures["leaks"].items()]
    return "\n\n".join([*parts, *([_accuracy(figures["accuracy"])] if figures["accuracy"] else [])])


def _data(figures: Figures) -> str:
    labelled = figures["samples"] - figures["labels"][UNLABELLED]
    labels = [
        f"{name} {count:,}"
        + (f" ({count / labelled:.1%})".replace("%", " %") if name != UNLABELLED and labelled else "")
        for name, count in figures["labels"].items()
    ]
    bad, plain = list(figures["pictures_unreadable"]), list(figures["pictures_of_one_colour"])
    named = [f" ({some(guids)})" if guids else "" for guids in (bad, plain)]
    empty, marks = figures["texts_empty_after_normalisation"], figures["texts_of_punctuation_alone"]
    return (
        f"{figures['data']}: {figures['samples']:,} samples, fingerprint {figures['data_fingerprint'][:12]}\n"
        f"labels     {', '.join(labels)}\n"
        f"encodings  {', '.join(f'{name} {count:,}' for name, count in figures['encodings'].items())}\n"
        f"texts      {len(empty):,} empty after normalisation, {len(marks):,} more with punctuation alone\n"
        f"pictures   {len(bad):,} unreadable{named[0]}, {len(plain):,} of a single colour{named[1]}"
    )


def _leaks(leaks: Figures, part: str, split: str) -> str:
    total, folds = leaks["any"], len(leaks["any"]["folds"])
    columns = {
        "samples": [f"{leak['with_twin']:,}" for leak in leaks.values()],
        "share": [f"{100 * leak['share_with_twin']:.1f} %" for leak in leaks.values()],
    }
    if part == UNLABELLED:
        title = f"The {total['samples']:,} unlabelled samples, against all labelled ones:"
        return f"{title}\n{_table('duplicate labelled', leaks, columns)}"
    columns["most have its label"] = [f"{leak['twins_say_its_label']:,}" for leak in leaks.values()]
    columns["some have it"] = [f"{leak['some_twin_has_its_label']:,}" for leak in leaks.values()]
    together = f", {folds} folds together" if folds > 1 else ""
    return (
        f"The {total['samples']:,} {part} samples of the {split} split{together}:\n"
        f"{_table('duplicate in training', leaks, columns)}\n"
        f"Copying the label of its duplicates in training is correct for {total['twins_say_its_label']:,} samples, "
        f"{100 * total['accuracy_from_copying']:.1f} points of accuracy; at most "
        f"{100 * total['accuracy_from_duplicates_at_most']:.1f} points can come from duplicates."
    )


def _accuracy(accuracy: Figures) -> str:
    kinds = accuracy["by_kind"]
    columns = {
        "with one, 95 %": [_share(shares["twins"], ends=True) for shares in kinds.values()],
        "of its label": [_share(shares["agree"]) for shares in kinds.values()],
        "of another": [_share(shares["differ"]) for shares in kinds.values()],
        "without one, 95 %": [_share(shares["alone"], ends=True) for shares in kinds.values()],
    }
    total, alone = kinds["any"]["every"], kinds["any"]["alone"]["share"]
    end = f"All {total['samples']:,}: {total['share']:.3f}"
    if alone is not None:
        end += f", which is {100 * (total['share'] - alone):+.1f} points from the accuracy on those without a duplicate"
    which = f"{accuracy['sweep']} {accuracy['trial_id']} ({accuracy['configuration']})"
    return f"Accuracy of {which}, and number of samples:\n{_table('duplicate in training', kinds, columns)}\n{end}."


def _share(share: Figures, *, ends: bool = False) -> str:
    if share["share"] is None:
        return "–"
    interval = " [{:.3f}, {:.3f}]".format(*share["interval"]) if ends else ""
    return f"{share['share']:.3f} of {share['samples']:,}{interval}"


def _table(title: str, kinds: Figures, columns: Mapping[str, Sequence[str]]) -> str:
    """Return a table with a line per kind of duplicate."""
    rows = [[title, *columns], *zip(kinds, *columns.values(), strict=True)]
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[kind.ljust(first), *map(str.rjust, cells, widths)] for kind, *cells in rows]
    return "\n".join("  ".join(cells) for cells in lines)
