"""What plots and pictures of the report are made of."""

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Sample
from mvsa_tune.report.drawing import scale, wrapped
from mvsa_tune.report.leaderboard import short_names
from mvsa_tune.report.page import (
    shown_sample,
)
from mvsa_tune.report.plots import budget, grids
from pages import Tags


def test_names_leave_out_what_all_share() -> None:
    configs = [Config(D=D, epochs=20) for D in (8, 16)]
    assert list(short_names(configs).values()) == ["D=8", "D=16"]
    assert list(short_names(configs[:1]).values()) == [configs[0].name]


def test_axes_and_labels_are_written_as_numbers_and_names_are() -> None:
    texts = re.findall(r">([^<>]+)</text>", budget(np.linspace(0.5, 0.8, 200)).svg)
    assert {"1", "10", "100"} <= set(texts) and not [text for text in texts if "$" in text or "\\" in text]
    position, ticks, labels = scale(np.geomspace(1e-5, 1e-2, 13), log=True)
    assert np.allclose(position, np.linspace(0, 1, 13)) and np.allclose(ticks, [0, 1 / 3, 2 / 3, 1])
    assert labels == ["1e-5", "1e-4", "1e-3", "0.01"]
    position, ticks, labels = scale([512, 32, 32, 64], log=False)
    assert (list(position), ticks, labels) == ([1, 0, 0, 0.5], [0, 0.5, 1], ["32", "64", "512"])
    name = "some-long-encoder+another-one D=128 lr=1e-4 bs=32 head=linear dropout=0.136 weight_decay=3.42e-4 epochs=7"
    assert wrapped(name).replace("\n", " ") == name and max(map(len, wrapped(name).split("\n"))) <= 60


def test_a_grid_holds_the_means_of_its_configurations() -> None:
    class One:
        def __init__(self, config: Config, right: float) -> None:
            self.config, self.values = config, np.full((2, 5), right)

    crossed = [One(Config(D=D, lr=lr), D * lr) for D in (8, 16) for lr in (1e-3, 1e-2)]
    (grid,) = grids(crossed[:3]).values()  # type: ignore[arg-type]
    assert list(grid.index) == ["8", "16"] and list(grid.columns) == ["1e-3", "0.01"]
    assert np.allclose(grid, [[0.008, 0.08], [0.016, np.nan]], equal_nan=True)
    assert not grids(crossed[:2])  # type: ignore[arg-type]
    # Many values become ranges.
    rng = np.random.default_rng(0)
    sampled = [One(Config(D=D, lr=10 ** rng.uniform(-5, -2)), 0.5) for D in (8, 16) * 20]
    (in_ranges,) = grids(sampled).values()  # type: ignore[arg-type]
    assert in_ranges.shape == (2, 6) and np.nanmax(np.abs(in_ranges - 0.5)) < 1e-12


def test_a_large_picture_is_shown_small(tmp_path: Path) -> None:
    Image.new("RGB", (600, 300), "teal").save(tmp_path / "large.jpg")
    sample = Sample("7", 0, tmp_path / "large.jpg", "a text", "utf-8")
    picture, text = shown_sample("7", {"7": sample})
    (tag,) = (attributes for tag, attributes in Tags(picture).tags if tag == "img")
    assert (tag["width"], tag["height"], text) == ("128", "64", "a text")
    with Image.open(io.BytesIO(base64.b64decode((tag["src"] or "").split(",")[1]))) as drawn:
        assert drawn.size == (128, 64)
