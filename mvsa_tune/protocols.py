"""Named sets of defaults: how others trained and scored. A flag on the command line takes precedence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The reference's data, MVSA-Single: how many labelled samples are negative, neutral and positive.
REFERENCE_COUNTS = (1193, 419, 2388)


@dataclass(frozen=True)
class Protocol:
    """How a paper trained and scored.

    Attributes:
        reported: the number that it reports, for the heading of the tables.
        fields: of a configuration, where they differ from the reference's.
        split: the split.
        finetuned_split: that of fine-tuned rows on the reference's data, where it is another.
        files: a folder of split files beside the data, which replaces `split` where it exists.
        seeds: how many seeds; None for the sweep's own default.
    """

    reported: str
    fields: Mapping[str, object] = field(default_factory=dict)
    split: str = "reference"
    finetuned_split: str | None = None
    files: str | None = None
    seeds: int | None = None

    def split_for(self, data: Path, label_counts: tuple[int, ...], *, finetuned: bool) -> str:
        """Return the split of a data folder, as `--split` takes it, for frozen or fine-tuned encoders."""
        folder = data / self.files if self.files else None
        if folder and folder.is_dir():
            return f"files:{folder}"
        as_published = finetuned and label_counts == REFERENCE_COUNTS
        return (as_published and self.finetuned_split) or self.split


PROTOCOLS = {
    "reference": Protocol("the best validation accuracy over the epochs", finetuned_split="reference-finetune"),
    # Cheema et al. 2021, arXiv:2106.08829.
    "cheema2021": Protocol(
        "accuracy and weighted F1 on the test part of each of ten folds (8 : 1 : 1), by the model with the lowest "
        "validation loss; their mean over the folds",
        {
            "D": 128, "lr": 2e-5, "batch_size": 32, "epochs": 100, "dropout": 0.5, "normalise": "l2",
            "schedule": "plateau", "select": "loss",
        },
        split="kfold:10:test",
        files="splits",
        seeds=1,
    ),
}  # fmt: skip
