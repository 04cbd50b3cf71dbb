"""The figures of an audit as a page for a person: names and counts, no tweet."""

from collections.abc import Mapping, Sequence
from typing import Any

from mvsa_tune.errors import some
from mvsa_tune.stats.audit import UNLABELLED

Figures = Mapping[str, Any]


def summary(figures: Figures) -> str:
    """Return the page on `Audit.figures`."""
    parts = [_data(figures), _duplicates(figures), *(_leaks(figures, part) for part in figures["leaks"])]
    return "\n\n".join([*parts, *([_accuracy(figures["accuracy"])] if figures["accuracy"] else [])])


def _data(figures: Figures) -> str:
    counts = dict(figures["labels"])
    unlabelled = counts.pop(UNLABELLED)
    labels = [f"{name} {count:,}" for name, count in counts.items()]
    if labelled := sum(counts.values()):
        labels = [f"{name} {count:,} ({_percent(count / labelled)})" for name, count in counts.items()]
    bad, plain = list(figures["pictures_unreadable"]), list(figures["pictures_of_one_colour"])
    named = [f" ({some(guids)})" if guids else "" for guids in (bad, plain)]
    empty, marks = figures["texts_empty_after_normalisation"], figures["texts_of_punctuation_alone"]
    return "\n".join(
        [
            f"{figures['data']}: {figures['samples']:,} samples, fingerprint {figures['data_fingerprint'][:12]}",
            f"labels     {', '.join([*labels, f'{UNLABELLED} {unlabelled:,}'])}",
            f"encodings  {', '.join(f'{name} {count:,}' for name, count in figures['encodings'].items())}",
            f"texts      {len(empty):,} empty after normalisation, {len(marks):,} more with punctuation alone",
            f"pictures   {len(bad):,} unreadable{named[0]}, {len(plain):,} of a single colour{named[1]}",
        ]
    )


def _duplicates(figures: Figures) -> str:
    keys = ("groups", "samples", "largest", "groups_whose_labels_disagree")
    body = [[kind, *(f"{counts[key]:,}" for key in keys)] for kind, counts in figures["duplicates"].items()]
    return aligned([["duplicates", "groups", "samples", "largest", "labels disagree"], *body])


def _leaks(figures: Figures, part: str) -> str:
    kinds = figures["leaks"][part]
    body = [[kind, f"{leak['with_twin']:,}", _percent(leak["share_with_twin"])] for kind, leak in kinds.items()]
    total, folds = kinds["any"], len(kinds["any"]["folds"])
    if part == UNLABELLED:
        title = f"The {total['samples']:,} unlabelled samples, against all labelled ones:"
        return f"{title}\n{aligned([['duplicate labelled', 'samples', 'share'], *body])}"
    keys = ("twins_say_its_label", "some_twin_has_its_label")
    body = [[*row, *(f"{leak[key]:,}" for key in keys)] for row, leak in zip(body, kinds.values(), strict=True)]
    header = ["duplicate in training", "samples", "share", "most have its label", "some have it"]
    together = f", {folds} folds together" if folds > 1 else ""
    return (
        f"The {total['samples']:,} {part} samples of the {figures['settings']['split']} split{together}:\n"
        f"{aligned([header, *body])}\n"
        f"Copying the label of its duplicates in training is correct for {total['twins_say_its_label']:,} samples, "
        f"{100 * total['accuracy_from_copying']:.1f} points of accuracy; at most "
        f"{100 * total['accuracy_from_duplicates_at_most']:.1f} points can come from duplicates."
    )


def _accuracy(accuracy: Figures) -> str:
    header = ["duplicate in training", "with one", "95 %", "of its label", "of another", "without one", "95 %"]
    body = [
        [kind, *_cells(shares["twins"]), _short(shares["agree"]), _short(shares["differ"]), *_cells(shares["alone"])]
        for kind, shares in accuracy["by_kind"].items()
    ]
    total, alone = accuracy["by_kind"]["any"]["every"], accuracy["by_kind"]["any"]["alone"]["share"]
    end = f"All {total['samples']:,}: {total['share']:.3f}"
    if alone is not None:
        end += f", which is {100 * (total['share'] - alone):+.1f} points from the accuracy on those without a duplicate"
    title = (
        f"Accuracy of {accuracy['sweep']} {accuracy['trial_id']} ({accuracy['configuration']}), and number of samples:"
    )
    return f"{title}\n{aligned([header, *body])}\n{end}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _cells(share: Figures) -> list[str]:
    if share["share"] is None:
        return ["–", ""]
    low, high = share["interval"]
    return [_short(share), f"[{low:.3f}, {high:.3f}]"]


def _short(share: Figures) -> str:
    return "–" if share["share"] is None else f"{share['share']:.3f} of {share['samples']:,}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines of aligned columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
