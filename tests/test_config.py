import dataclasses
import itertools

import pytest

from mvsa_tune.config import AXES, FINETUNING, Config, config_from_texts, product, setting, union, within
from mvsa_tune.errors import InputError
from mvsa_tune.formats import short
from mvsa_tune.sweeps import FINETUNE, GRID, GRID_REFERENCE

OTHER = {
    "image_encoder": "resnet50", "text_encoder": "roberta-base", "head": "gated", "D": 128, "lr": 2e-5,
    "batch_size": 32,
    "ablation": 1, "epochs": 7, "dropout": 0.5, "precision": "bf16",
    "weight_decay": 0.01, "label_smoothing": 0.1, "normalise": "l2", "schedule": "cosine",
    "warmup": 0.1, "select": "loss", "encoder_lr": 2e-5, "frozen": 0.5, "batchnorm": "updated", "accumulation": 2,
}  # fmt: skip


def test_defaults_are_the_reference() -> None:
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
    changes = [{"encoder_lr": 3e-5, **change} if set(change) & set(FINETUNING) else change for change in changes]
    configs = {dataclasses.replace(Config(), **change) for change in changes}
    assert len({config.id for config in configs}) == len(configs)
    assert len({config.name for config in configs}) == len(configs)


def test_identity_is_the_same_in_every_process() -> None:  # results on disk are found by it
    assert Config().id == "44136fa355"
    assert Config().id == Config(lr=0.0001).id


def test_a_new_field_leaves_every_identity_as_it_is() -> None:
    @dataclasses.dataclass(frozen=True)
    class Later(Config):
        momentum: float = setting(0.9, "a hyperparameter of a later version", within(0, 1))

    for change in ({}, {"D": 128, "lr": 2e-5}, {"ablation": 1}, OTHER | {"ablation": 0}):
        assert Later(**change).id == Config(**change).id  # type: ignore[arg-type]
    assert Later(momentum=0.5).id != Config().id


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
        ({"head": "mystery"}, "one of concat, concat-shared-norm, cross-attention"),
        ({"head": "merged-attention", "D": 100}, "--D 100: --head merged-attention needs a multiple of 8"),
        ({"image_encoder": None}, "needs an encoder for the image"),
        ({"frozen": 0.5}, "--frozen 0.5: of no use with frozen encoders"),
        ({"encoder_lr": 1e-4, "frozen": 1.0}, "--frozen 1.0: must be at least 0 and below 1"),
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


def test_the_reference_grid_has_the_24_frozen_configurations() -> None:
    configs = union(GRID_REFERENCE)
    assert len(configs) == 24
    assert sum(config.batch_size == 32 for config in configs) == 8
    assert sum(config.ablation != 0 for config in configs) == 4


@pytest.mark.parametrize("pair", ["a", "a+", "+b", "a+b+c", ""])
def test_a_pair_is_two_names(pair: str) -> None:
    with pytest.raises(InputError, match="IMAGE_ENCODER"):
        product({"pair": [pair]})


def test_axes_are_flags_that_take_several_values() -> None:
    options = GRID.parse(["--D", "1", "2", "--lr", "0.1", "0.2", "--dropout", "0", "0.5", "--seeds", "3"])
    assert {"D", "lr", "batch_size", "ablation", "head", "dropout"} < set(AXES)
    assert len(GRID.requested(options)) == 8
    assert options.seeds == (3, 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-4, "1e-4"),
        (1e-3, "1e-3"),
        (0.0025, "2.5e-3"),
        (0.01, "0.01"),
        (2e-5, "2e-5"),
        (0.3, "0.3"),
        (1.5e-5, "1.5e-5"),
        (0.0, "0"),
        (3, "3"),
    ],
)
def test_numbers_are_written_as_a_person_would(value: float, text: str) -> None:
    assert short(value) == text
    assert float(text) == value


def test_the_references_fine_tuned_rows_train_as_it_did_with_the_better_head_beside() -> None:
    configs = FINETUNE.requested(FINETUNE.parse([]))
    assert [(config.ablation, config.lr, config.head) for config in configs] == [
        (0, 2e-5, "concat-shared-norm"), (0, 2e-5, "concat"), (0, 1e-4, "concat-shared-norm"), (0, 1e-4, "concat"),
        (2, 1e-4, "concat"), (1, 1e-4, "concat"),
    ]  # fmt: skip
    assert all(config.encoder_lr == config.lr and config.batch_size == 64 and config.D == 256 for config in configs)
    assert {config.batchnorm for config in configs} == {"updated"}
    epochs = FINETUNE.requested(FINETUNE.parse(["--epochs", "3", "--accumulation", "2"]))
    assert len(epochs) == 6 and {(config.epochs, config.accumulation) for config in epochs} == {(3, 2)}


def test_fine_tuning_flags_make_a_grid_with_the_encoders_learning_rate_apart_or_the_heads() -> None:
    flags = ["--pairs", "a+b", "--lr", "1e-3", "1e-4", "--frozen", "0", "0.5"]
    same = FINETUNE.requested(FINETUNE.parse(flags))
    assert len(same) == 4 and all(config.encoder_lr == config.lr for config in same)
    apart = FINETUNE.requested(FINETUNE.parse([*flags, "--encoder-lr", "1e-5", "2e-5"]))
    assert len(apart) == 8 and {config.encoder_lr for config in apart} == {1e-5, 2e-5}
    with pytest.raises(InputError, match=r"--encoder-lr 0: encoders that are not trained are for sweeps/grid\.py"):
        FINETUNE.requested(FINETUNE.parse(["--encoder-lr", "0"]))


def test_a_configuration_comes_back_from_its_columns() -> None:
    for change in ({}, {"ablation": 1, "lr": 3e-5, "normalise": "l2"}, {"ablation": 2, "D": 77}):
        config = dataclasses.replace(Config(), **change)
        texts = {name: "" if value is None else str(value) for name, value in vars(config).items()}
        assert config_from_texts(texts) == config
        del texts["dropout"]  # a column that an older version did not write
        assert config_from_texts(texts) == config
