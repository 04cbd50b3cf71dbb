"""What a configuration gets wrong: by class, by sample, by modality. Reads the store alone."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.config import MODALITIES, Config
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.formats import markdown
from mvsa_tune.results.store import Store
from mvsa_tune.stats.summary import ranked, summarise
from mvsa_tune.training.result import NO_ROW, TrialResult

SHOWN = 20
VOTES = "votes_"
# The ablation that sees one modality alone.
ALONE = {"text": 1, "image": 2}
CALLED = {"text": "text", "image": "picture"}


def write_mistakes(store: Store, config: Config, texts: Mapping[str, str] | None = None) -> str:
    """Write `errors.md` and `errors.csv` into the sweep's folder; return the page.

    Args:
        store: the sweep.
        config: one of its finished configurations.
        texts: tweets by guid, to show beside the samples; None for none.
    """
    outcome = store.result(config.id)
    known = store.samples()
    labels, classes = known["label"].to_numpy(), store.manifest.classes
    samples = by_sample(outcome, known["guid"].tolist(), labels, classes)
    parts = [
        f"# {store.folder.name}: errors of {config.id}\n\n{config.name}\n\n{len(outcome.best)} replicates, each at its best epoch, on "
        f"{len(samples):,} validation samples{_own(outcome)}. The epoch was chosen on these samples, so the numbers read high.\n",
        f"## By class\n\n{_classes(outcome, labels, classes)}",
        f"## Most often wrong\n\n{_listed(samples[samples['wrong'] > 0], texts)}",
        f"## Most disputed among the replicates\n\n{_listed(disputed(samples), texts)}",
        f"## Each modality alone\n\n{_modalities(store, config, outcome, labels)}",
    ]
    page = "\n".join(parts)
    write_whole(store.folder / "errors.csv", lambda file: samples.to_csv(file, index=False, lineterminator="\n"))
    write_text_whole(store.folder / "errors.md", page)
    return page


def _own(outcome: TrialResult) -> str:
    """What to add where each replicate has samples of its own."""
    sizes = sorted((outcome.rows != NO_ROW).sum(axis=1))
    if sizes[-1] == outcome.distinct("rows"):
        return ""
    return f" in all, each on {sizes[0]:,}{f' to {sizes[-1]:,}' if sizes[-1] > sizes[0] else ''} of its own"


def by_sample(
    outcome: TrialResult, guids: list[str], labels: NDArray[np.int64], classes: Sequence[str]
) -> pd.DataFrame:
    """One row a validation sample, the most often wrong first.

    Columns: `guid`, `label`, `n` (replicates that validated on it), `wrong` (how many erred), `votes_CLASS`.
    """
    votes = np.zeros((len(labels), len(classes)), dtype=np.int64)
    present = outcome.rows != NO_ROW
    np.add.at(votes, (outcome.rows[present], outcome.best[present]), 1)
    rows = np.unique(outcome.rows[present])
    right = votes[rows, labels[rows]]
    frame = pd.DataFrame({"guid": [guids[row] for row in rows], "label": [classes[labels[row]] for row in rows]})
    frame["n"] = votes[rows].sum(axis=1)
    frame["wrong"] = frame["n"] - right
    for index, label in enumerate(classes):
        frame[VOTES + label] = votes[rows, index]
    order = (-(frame["wrong"] / frame["n"])).argsort(kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def disputed(samples: pd.DataFrame) -> pd.DataFrame:
    """Those of `by_sample` whose replicates do not agree, the smallest majority first."""
    votes = samples[_votes(samples)].to_numpy()
    majority = votes.max(axis=1) / votes.sum(axis=1)
    order = majority.argsort(kind="stable")
    return samples.iloc[order[majority[order] < 1]]


def _votes(samples: pd.DataFrame) -> list[str]:
    """The columns of `by_sample` that count votes, in class order."""
    return [name for name in samples.columns if name.startswith(VOTES)]


def per_class(outcome: TrialResult, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """`(R, 3, C)`: precision, recall and F1 of each replicate and class; 0 where nothing was there to divide by."""
    from sklearn.metrics import precision_recall_fscore_support

    every = range(outcome.confusion.shape[-1])
    scores = [
        precision_recall_fscore_support(labels[rows[own]], predicted[own], labels=every, zero_division=0)[:3]
        for rows, predicted, own in zip(outcome.rows, outcome.best, outcome.rows != NO_ROW, strict=True)
    ]
    return np.array(scores)


def confusion(outcome: TrialResult) -> NDArray[np.float64]:
    """`(C, C)`: counts at each replicate's best epoch, their mean; true class down, predicted across."""
    mean: NDArray[np.float64] = outcome.at_best(outcome.confusion).mean(axis=0)
    return mean


def _classes(outcome: TrialResult, labels: NDArray[np.int64], classes: Sequence[str]) -> str:
    scores = per_class(outcome, labels)
    means = scores.mean(axis=0)
    spreads = scores.std(axis=0, ddof=1) if len(scores) > 1 else np.full(means.shape, np.nan)
    body = []
    for index, (label, counts) in enumerate(zip(classes, confusion(outcome), strict=True)):
        cells = [_with_spread(means[kind, index], spreads[kind, index]) for kind in range(3)]
        body.append([label, *(f"{count:.1f}" for count in counts), *cells])
    header = ["true ↓ said →", *classes, "precision", "recall", "F1"]
    return f"Counts: means over the replicates; scores: mean ± standard deviation.\n\n{markdown(header, body)}"


def _with_spread(mean: float, spread: float) -> str:
    return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


def _listed(samples: pd.DataFrame, texts: Mapping[str, str] | None) -> str:
    if samples.empty:
        return "None.\n"
    votes = _votes(samples)
    said = [f"said {name.removeprefix(VOTES)}" for name in votes]
    header = ["guid", "label", *said, *(["text"] if texts is not None else [])]
    body = []
    for _, row in samples.head(SHOWN).iterrows():
        cells = [str(row[name]) for name in ("guid", "label", *votes)]
        shown = [texts.get(row["guid"], "")] if texts is not None else []
        # What the data brings is one cell: its line breaks would end it.
        body.append([" ".join(cell.split()) for cell in cells + shown])
    of = f"{min(SHOWN, len(samples))} of {len(samples):,} samples; errors.csv has all.\n\n"
    return of + markdown(header, body)


def _modalities(store: Store, config: Config, outcome: TrialResult, labels: NDArray[np.int64]) -> str:
    if config.ablation:
        return f"The configuration sees the {CALLED[config.modalities[0]]} alone.\n"
    alone = {modality: _alone(store, config, modality) for modality in MODALITIES}
    missing = [
        f"no finished trial on the {CALLED[modality]} of {config.encoders[modality]} alone (--ablation {ALONE[modality]})"
        for modality, one in alone.items()
        if one is None
    ]
    text, image = alone["text"], alone["image"]
    if text is None or image is None:
        return f"Not in this sweep: {'; '.join(missing)}.\n"
    present = outcome.rows != NO_ROW
    right = {
        name: one.best == labels[one.rows] for name, one in {"text": text, "image": image, "both": outcome}.items()
    }
    cells = {
        "both": right["text"] & right["image"],
        "text alone": right["text"] & ~right["image"],
        "picture alone": ~right["text"] & right["image"],
        "neither": ~right["text"] & ~right["image"] & present,
    }
    body = []
    for name, cell in cells.items():
        accuracy = f"{right['both'][cell].mean():.3f}" if cell.any() else "–"
        body.append([name, f"{cell.sum(axis=1).mean():.1f}", f"{cell.sum() / present.sum():.3f}", accuracy])
    header = ["right", "samples", "share", "the configuration is right there"]
    return (
        "The best finished trial on the text alone and that on the picture alone, of the same encoders, replicate by replicate "
        f"(means).\n\n{markdown(header, body)}"
    )


def _alone(store: Store, config: Config, modality: str) -> TrialResult | None:
    """The best finished trial of the sweep that sees one modality alone, by the same encoder."""
    order = ranked(summarise(store))
    mine = order[(order["ablation"] == ALONE[modality]) & (order[f"{modality}_encoder"] == config.encoders[modality])]
    return None if mine.empty else store.result(str(mine.iloc[0]["trial_id"]))
