"""Named sets of defaults: what others did, under one word. Any flag that is given wins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Protocol:
    """How a paper trained and scored.

    Attributes:
        reported: its number, for a table's heading.
        fields: of a configuration, where they are not the reference's.
        split: its split.
        files: the folder of split files beside the data that replaces `split` where it is there.
        seeds: how many; None for the sweep's own default.
    """

    reported: str
    fields: Mapping[str, object] = field(default_factory=dict)
    split: str = "reference"
    files: str | None = None
    seeds: int | None = None

    def split_for(self, data: Path) -> str:
        """Its split of a data folder, as `--split` takes it."""
        there = self.files is not None and (data / self.files).is_dir()
        return f"files:{data / str(self.files)}" if there else self.split


PROTOCOLS = {
    "reference": Protocol("the best validation accuracy over the epochs, which reads high: it is chosen on what it is scored on"),
    # Cheema et al. 2021, arXiv:2106.08829.
    "cheema2021": Protocol(
        "accuracy and weighted F1 on the test part of each of ten folds (8 : 1 : 1), by the model of the least validation loss; "
        "their mean over the folds",
        {
            "D": 128, "lr": 2e-5, "batch_size": 32, "epochs": 100, "dropout": 0.5, "normalise": "l2", "schedule": "plateau",
            "select": "loss",
        },
        split="kfold:10:test",
        files="splits",
        seeds=1,
    ),
}  # fmt: skip
