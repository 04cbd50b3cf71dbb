"""Which configurations stand in which of the reference's tables, with what was published of them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from mvsa_tune.config import Config

REFERENCE_BATCH_SIZE = {False: 512, True: 64}  # fine-tuned or not
# Table 3 does not say which CLIP: it stands for both.
CLIP = ("clip-vit-b-32", "clip-vit-l-14")


@dataclass(frozen=True)
class Line:
    """A row of a table: what it is about, the published accuracy if that is about the same, and ours if we have it."""

    table: int
    label: str
    vision: str
    text: str
    finetuned: bool
    batch_size: int
    D: int
    lr: float
    published: str
    config: Config
    note: str = ""


def published_lines(precision: str = Config.precision) -> list[Line]:
    """Every row of the reference's tables, as configurations, trained in `precision`: theirs was mixed on a GPU."""
    lines = []
    text = resources.files("mvsa_tune.report").joinpath("published.csv").read_text(encoding="utf-8")
    for cell in csv.DictReader(text.splitlines()):
        clips = CLIP if "clip" in (cell["vision"], cell["text"]) else ("",)
        for clip in clips:
            vision, words = (clip if cell[column] == "clip" else cell[column] for column in ("vision", "text"))
            finetuned = cell["finetuned"] == "yes"
            lr = float(cell["lr"])
            config = Config(
                image_encoder=vision or None,
                text_encoder=words or None,
                D=int(cell["D"]),
                lr=lr,
                batch_size=int(cell["batch_size"]),
                ablation=int(cell["ablation"]),
                precision=precision,
                encoder_lr=lr if finetuned else 0.0,
            )
            lines.append(
                Line(
                    table=int(cell["table"]),
                    label=cell["row"],
                    vision=vision,
                    text=words,
                    finetuned=finetuned,
                    batch_size=config.batch_size,
                    D=config.D,
                    lr=config.lr,
                    published=cell["val_acc"],
                    config=config,
                    note=cell["note"],
                )
            )
    return lines


def own_lines(configs: Sequence[Config]) -> list[Line]:
    """The tables' rows for configurations that the reference do not have."""
    pairs = list(dict.fromkeys((c.image_encoder, c.text_encoder) for c in configs if c.ablation == 0))
    lines = []
    for config in configs:
        if config.ablation != 0:
            table = 4
        elif config.batch_size != REFERENCE_BATCH_SIZE[config.finetuned]:
            table = 3
        else:
            table = 1 if pairs.index((config.image_encoder, config.text_encoder)) < 2 else 2
        lines.append(
            Line(
                table=table,
                label="",
                vision=config.image_encoder or "",
                text=config.text_encoder or "",
                finetuned=config.finetuned,
                batch_size=config.batch_size,
                D=config.D,
                lr=config.lr,
                published="",
                config=config,
                note=config.other_changes,
            )
        )
    return lines
