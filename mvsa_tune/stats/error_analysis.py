"""What a configuration gets wrong: by class, by sample, by modality. Reads the results folder alone."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mvsa_tune.config import MODALITIES, Config
from mvsa_tune.errors import counted
from mvsa_tune.files import write_text_whole, write_whole
from mvsa_tune.formats import markdown
from mvsa_tune.results.store import Store
from mvsa_tune.stats.summary import ranked, summarise
from mvsa_tune.training.result import NO_ROW, TrialResult, take

SHOWN = 20
VOTES = "votes_"
# By modality: the ablation that uses it alone, and its name on the page.
ALONE = {"text": 1, "image": 2}
CALLED = {"text": "text", "image": "picture"}


def write_errors(store: Store, config: Config, texts: Mapping[str, str] | None = None) -> str:
    """Write `errors.md` and `errors.csv` into the sweep's folder; return the page.

    Args:
        store: the sweep.
        config: one of its finished configurations.
        texts: tweets by guid, to show beside the samples; None for none.
    """
    result, known = store.result(config.id), store.samples()
    labels, classes = known["label"].to_numpy(), store.manifest.classes
    samples = by_sample(result, known["guid"].tolist(), labels, classes)
    sizes = sorted({int(size) for size in (result.rows != NO_ROW).sum(axis=1)})
    each = f" in all, {' to '.join(f'{size:,}' for size in sizes[:: len(sizes) - 1 or 1])} of them for each replicate"
    page = "\n".join(
        [
            f"# {store.folder.name}: errors of {config.id}\n\n{config.name}\n\n"
            f"{counted(len(result.rows), 'replicate')}, each at its best epoch, on {len(samples):,} validation samples"
            f"{each if sizes[-1] < len(samples) else ''}. The epoch was chosen on these samples, so the scores are "
            "biased upwards.\n",
            f"## By class\n\n{_by_class(result, labels, classes)}",
            f"## Most often wrong\n\n{_listed(samples[samples['wrong'] > 0], texts)}",
            f"## Most disputed among the replicates\n\n{_listed(disputed(samples), texts)}",
            f"## Each modality alone\n\n{_by_modality(store, config, labels)}",
        ]
    )
    write_whole(store.folder / "errors.csv", lambda file: samples.to_csv(file, index=False, lineterminator="\n"))
    write_text_whole(store.folder / "errors.md", page)
    return page


def by_sample(
    result: TrialResult, guids: Sequence[str], labels: NDArray[np.int64], classes: Sequence[str]
) -> pd.DataFrame:
    """Return one row per validation sample, the most often wrong first.

    Columns: `guid`, `label`, `n` (replicates that validated on it), `wrong` (how many of them erred), `votes_CLASS`.
    """
    votes = np.zeros((len(labels), len(classes)), dtype=np.int64)
    present = result.rows != NO_ROW
    np.add.at(votes, (result.rows[present], result.best[present]), 1)
    rows = np.unique(result.rows[present])
    frame = pd.DataFrame({"guid": [guids[row] for row in rows], "label": [classes[labels[row]] for row in rows]})
    frame["n"] = votes[rows].sum(axis=1)
    frame["wrong"] = frame["n"] - votes[rows, labels[rows]]
    frame[[VOTES + label for label in classes]] = votes[rows]
    order = (-(frame["wrong"] / frame["n"])).argsort(kind="stable")
    return frame.iloc[order].reset_index(drop=True)


def disputed(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `by_sample` whose replicates do not agree, the smallest majority first."""
    votes = samples.filter(regex=f"^{VOTES}").to_numpy()
    majority = votes.max(axis=1) / votes.sum(axis=1)
    order = majority.argsort(kind="stable")
    return samples.iloc[order[majority[order] < 1]]


def per_class(result: TrialResult, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return precision, recall and F1 of each replicate and class, `(R, 3, C)`; 0 in place of 0 / 0."""
    from sklearn.metrics import precision_recall_fscore_support

    classes = range(result.confusion.shape[-1])
    scores = [
        precision_recall_fscore_support(labels[rows[present]], best[present], labels=classes, zero_division=0)[:3]
        for rows, best, present in zip(result.rows, result.best, result.rows != NO_ROW, strict=True)
    ]
    return np.array(scores)


def class_scores(result: TrialResult, labels: NDArray[np.int64]) -> list[list[str]]:
    """Return precision, recall and F1 of each class as texts: the mean over replicates ± standard deviation.

    A class without validation samples has dashes.
    """
    scores = per_class(result, labels)
    cells = np.char.mod("%.3f", scores.mean(axis=0))
    if len(scores) > 1:
        cells = np.char.add(cells, np.char.mod(" ± %.3f", scores.std(axis=0, ddof=1)))
    cells[:, confusion(result).sum(axis=1) == 0] = "–"
    return [list(map(str, row)) for row in cells.T]


def confusion(result: TrialResult) -> NDArray[np.float64]:
    """Return the counts at each replicate's best epoch, averaged: `(C, C)`, true class down, predicted across."""
    mean: NDArray[np.float64] = result.at_best(result.confusion).mean(axis=0)
    return mean


def _by_class(result: TrialResult, labels: NDArray[np.int64], classes: Sequence[str]) -> str:
    rows = zip(classes, confusion(result), class_scores(result, labels), strict=True)
    body = [[label, *(f"{count:.1f}" for count in counts), *scores] for label, counts, scores in rows]
    header = ["true ↓ predicted →", *classes, "precision", "recall", "F1"]
    return f"Counts: means over the replicates; scores: mean ± standard deviation.\n\n{markdown(header, body)}"


def _listed(samples: pd.DataFrame, texts: Mapping[str, str] | None) -> str:
    if samples.empty:
        return "None.\n"
    columns = ["guid", "label", *samples.filter(regex=f"^{VOTES}").columns]
    shown = samples.head(SHOWN)[columns].astype(str)
    if texts is not None:
        shown["text"] = [texts.get(guid, "") for guid in shown["guid"]]
    body = [[" ".join(cell.split()) for cell in row] for row in shown.to_numpy()]  # a line break would end the cell
    header = [name.replace(VOTES, "predicted ") for name in shown.columns]
    return f"{len(shown)} of {len(samples):,} samples; errors.csv has all.\n\n{markdown(header, body)}"


def _by_modality(store: Store, config: Config, labels: NDArray[np.int64]) -> str:
    """Return a table of the samples that the best trials on one modality classify correctly."""
    if config.ablation:
        return f"The configuration uses the {CALLED[config.modalities[0]]} alone.\n"
    trials, missing = {"both": config.id}, []
    order = ranked(summarise(store))
    for modality in MODALITIES:
        encoder, code = config.encoders[modality], ALONE[modality]
        alone = order.loc[(order["ablation"] == code) & (order[f"{modality}_encoder"] == encoder), "trial_id"]
        if alone.empty:
            missing.append(f"no finished trial on the {CALLED[modality]} of {encoder} alone (--ablation {code})")
        else:
            trials[modality] = str(alone.iloc[0])
    if missing:
        return f"Not in this sweep: {'; '.join(missing)}.\n"
    replicates = {name: store.replicates(trial) for name, trial in trials.items()}
    common = [replicate for replicate in replicates["both"] if all(replicate in of for of in replicates.values())]
    if not common:
        return "This configuration and the best trials on one modality have no seed in common.\n"
    correct = {}
    for name, trial in trials.items():
        result = take(store.result(trial), [replicates[name].index(replicate) for replicate in common])
        present = result.rows != NO_ROW
        kept = present.any(axis=0)  # replicates that are left out may have had more samples
        present, correct[name] = present[:, kept], (present & (result.best == labels[result.rows]))[:, kept]
    text, image = correct["text"], correct["image"]
    groups = {"both": text & image, "text alone": text & ~image, "picture alone": image & ~text}
    groups["neither"] = ~text & ~image & present
    body = []
    for name, group in groups.items():
        accuracy = f"{correct['both'][group].mean():.3f}" if group.any() else "–"
        body.append([name, f"{group.sum(axis=1).mean():.1f}", f"{group.sum() / present.sum():.3f}", accuracy])
    header = ["correct", "samples", "share", "accuracy of the configuration"]
    over = "replicates"
    if len(common) < max(map(len, replicates.values())):
        over = f"{len(common)} replicates that all three have"
    return (
        "The best finished trials on the text alone and on the picture alone, with the same encoders; means over the "
        f"{over}.\n\n{markdown(header, body)}"
    )
