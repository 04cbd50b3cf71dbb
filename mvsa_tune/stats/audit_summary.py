"""An audit's figures → a page for a person."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvsa_tune.errors import some
from mvsa_tune.stats.leaks import UNLABELLED


def summary(figures: Mapping[str, Any]) -> str:
    """Write what `audit.figures` holds: names and counts, no tweet."""
    parts = [_set(figures), _duplicates(figures), *(_leak(figures, part) for part in figures["leaks"])]
    if figures["accuracy"]:
        parts.append(_accuracy(figures))
    return "\n\n".join(parts)


def _set(figures: Mapping[str, Any]) -> str:
    labelled = sum(count for name, count in figures["labels"].items() if name != UNLABELLED)
    labels = [
        f"{name} {count:,}" + (f" ({_percent(count / labelled)})" if name != UNLABELLED and labelled else "")
        for name, count in figures["labels"].items()
    ]
    bad, plain = figures["pictures_unreadable"], figures["pictures_of_one_colour"]
    empty, marks = figures["texts_empty_after_normalisation"], figures["texts_of_punctuation_alone"]
    lines = {
        "labels": ", ".join(labels),
        "encodings": ", ".join(f"{name} {count:,}" for name, count in figures["encodings"].items()),
        "texts": f"{len(empty):,} empty after normalisation, {len(marks):,} more with punctuation alone",
        "pictures": f"{len(bad):,} unreadable{_named(list(bad))}, {len(plain):,} of a single colour{_named(plain)}",
    }
    head = f"{figures['data']}: {figures['samples']:,} samples, fingerprint {figures['data_fingerprint'][:12]}"
    return "\n".join([head, *(f"{name:<10} {text}" for name, text in lines.items())])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _named(guids: Sequence[str]) -> str:
    return f" ({some(list(guids))})" if guids else ""


def _duplicates(figures: Mapping[str, Any]) -> str:
    header = ["duplicates", "groups", "samples", "largest", "labels disagree"]
    keys = ("groups", "samples", "largest", "groups_whose_labels_disagree")
    body = [[kind, *(f"{one[key]:,}" for key in keys)] for kind, one in figures["duplicates"].items()]
    return aligned([header, *body])


def _leak(figures: Mapping[str, Any], part: str) -> str:
    kinds, unlabelled = figures["leaks"][part], part == UNLABELLED
    any_kind = kinds["any"]
    header = ["duplicate in training" if not unlabelled else "duplicate labelled", "samples", "share"]
    header += [] if unlabelled else ["most have its label", "some have it"]
    body = []
    for kind, one in kinds.items():
        cells = [kind, f"{one['with_twin']:,}", _percent(one["share_with_twin"])]
        if not unlabelled:
            cells += [f"{one[key]:,}" for key in ("twins_say_its_label", "some_twin_has_its_label")]
        body.append(cells)
    if unlabelled:
        title = f"The {any_kind['samples']:,} unlabelled samples, against all labelled ones:"
        return f"{title}\n{aligned([header, *body])}"
    folds = len(any_kind["folds"])
    title = f"The {any_kind['samples']:,} {part} samples of the {figures['settings']['split']} split"
    title += f", {folds} folds together:" if folds > 1 else ":"
    end = (
        f"Copying the label of its duplicates in training is right on {any_kind['twins_say_its_label']:,} samples, "
        f"{100 * any_kind['accuracy_from_copying']:.1f} points of accuracy; at most "
        f"{100 * any_kind['accuracy_from_duplicates_at_most']:.1f} points can come from duplicates."
    )
    return f"{title}\n{aligned([header, *body])}\n{end}"


def _accuracy(figures: Mapping[str, Any]) -> str:
    about = figures["accuracy"]
    every = about["by_kind"]["any"]["every"]
    header = ["duplicate in training", "with one", "95 %", "of its label", "of another", "without one", "95 %"]
    body = []
    for kind, one in about["by_kind"].items():
        body.append(
            [
                kind,
                *_cells(one["twins"]),
                _short(one["agree"]),
                _short(one["differ"]),
                *_cells(one["alone"]),
            ]
        )
    alone = about["by_kind"]["any"]["alone"]["share"]
    end = f"All {every['samples']:,}: {every['share']:.3f}"
    if alone is not None:
        end += f", which is {100 * (every['share'] - alone):+.1f} points from what it is without those that have a duplicate"
    return (
        f"Accuracy of {about['sweep']} {about['trial_id']} ({about['configuration']}), of how many samples:\n"
        f"{aligned([header, *body])}\n{end}."
    )


def _cells(share: Mapping[str, Any]) -> list[str]:
    if share["share"] is None:
        return ["–", ""]
    low, high = share["interval"]
    return [_short(share), f"[{low:.3f}, {high:.3f}]"]


def _short(share: Mapping[str, Any]) -> str:
    return "–" if share["share"] is None else f"{share['share']:.3f} of {share['samples']:,}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines whose columns line up, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
