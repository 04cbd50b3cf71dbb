import dataclasses
import itertools

import pytest

import grid
from mvsa_tune.config import AXES, Config, config_from_texts, product, short
from mvsa_tune.errors import InputError

OTHER = {
    "image_encoder": "resnet50", "text_encoder": "roberta-base", "head": "gated", "D": 128, "lr": 2e-5, "batch_size": 32,
    "ablation": 1, "epochs": 7, "dropout": 0.5, "precision": "bf16",
    "weight_decay": 0.01, "label_smoothing": 0.1, "normalise": "l2", "schedule": "cosine",
    "warmup": 0.1, "select": "loss",
}  # fmt: skip


def test_defaults_are_the_documents() -> None:
    config = Config()
    assert (config.image_encoder, config.text_encoder) == ("clip-vit-b-32", "clip-vit-b-32")
    assert (config.batch_size, config.lr, config.epochs, config.D, config.ablation) == (
        512,
        1e-4,
        100,
        256,
        0,
    )
    assert config.dropout == 0.3


def test_identity_and_name_change_with_every_field() -> None:
    assert set(OTHER) == {item.name for item in dataclasses.fields(Config)}
    changes = [{}] + [{name: value} for name, value in OTHER.items() if value is not None]
    changes += [{**a, **b} for a, b in itertools.combinations(changes[1:], 2)]
    configs = {dataclasses.replace(Config(), **change) for change in changes}
    assert len({config.id for config in configs}) == len(configs)
    assert len({config.name for config in configs}) == len(configs)


def test_identity_is_the_same_in_every_process() -> None:  # results on disk are found by it
    assert Config().id == "99a1d23157"
    assert Config().id == Config(lr=0.0001).id


def test_with_one_modality_the_other_encoder_does_not_matter() -> None:
    assert Config(image_encoder="a", ablation=1) == Config(image_encoder="b", ablation=1)
    assert Config(text_encoder="a", ablation=2).text_encoder is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.0}, "--lr 0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"lr": float("inf")}, "--lr inf"),
        ({"D": -1}, "--D -1"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"ablation": 3}, "one of 0, 1, 2"),
        ({"dropout": 1.0}, "below 1"),
        ({"epochs": 0}, "--epochs 0"),
        ({"head": "mystery"}, "one of concat, cross-attention"),
        ({"head": "merged-attention", "D": 100}, "--D 100: --head merged-attention needs a multiple of 8"),
        ({"image_encoder": None}, "needs an encoder for the image"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_flag(change: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Config(**change)  # type: ignore[arg-type]


def test_product_is_every_combination_once() -> None:
    configs = product({"pair": ["a+c", "b+c"], "D": [1, 2], "ablation": [0, 1, 2]})
    # text only is the same training for both pairs
    assert len(configs) == 2 * 2 + 2 + 2 * 2
    assert len(set(configs)) == len(configs)


def test_the_documents_grid_has_the_24_frozen_configurations() -> None:
    configs = grid.documents_grid()
    assert len(configs) == 24
    assert sum(config.batch_size == 32 for config in configs) == 8
    assert sum(config.ablation != 0 for config in configs) == 4


@pytest.mark.parametrize("pair", ["a", "a+", "+b", "a+b+c", ""])
def test_a_pair_is_two_names(pair: str) -> None:
    with pytest.raises(InputError, match="IMAGE_ENCODER"):
        product({"pair": [pair]})


def test_axes_are_flags_that_take_several_values() -> None:
    options = grid.parse(["--D", "1", "2", "--lr", "0.1", "0.2", "--dropout", "0", "0.5", "--seeds", "3"])
    assert {"D", "lr", "batch_size", "ablation", "head", "dropout"} < set(AXES)
    assert len(grid.configurations(options)) == 8
    assert options.seeds == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "1e-4"), (2e-5, "2e-5"), (0.3, "0.3"), (1.5e-5, "1.5e-5"), (0.0, "0"), (3, "3")],
)
def test_numbers_are_written_as_a_person_would(value: float, text: str) -> None:
    assert short(value) == text
    assert float(text) == value


def test_a_configuration_comes_back_from_its_columns() -> None:
    for change in ({}, {"ablation": 1, "lr": 3e-5, "normalise": "l2"}, {"ablation": 2, "D": 77}):
        config = dataclasses.replace(Config(), **change)
        texts = {name: "" if value is None else str(value) for name, value in vars(config).items()}
        assert config_from_texts(texts) == config
