"""Named sets of defaults: how others trained and scored. A flag on the command line takes precedence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Protocol:
    """How a paper trained and scored.

    Attributes:
        reported: the number that it reports, for the heading of the tables.
        fields: of a configuration, where they differ from the reference's.
        split: the split.
        files: a folder of split files beside the data, which replaces `split` where it exists.
        seeds: how many seeds; None for the sweep's own default.
    """

    reported: str
    fields: Mapping[str, object] = field(default_factory=dict)
    split: str = "reference"
    files: str | None = None
    seeds: int | None = None

    def split_for(self, data: Path) -> str:
        """Return the split of a data folder, as `--split` takes it."""
        folder = data / self.files if self.files else None
        return f"files:{folder}" if folder and folder.is_dir() else self.split


PROTOCOLS = {
    "reference": Protocol("the best validation accuracy over the epochs"),
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
