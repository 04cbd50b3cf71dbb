import errno
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from mvsa_tune.config import Config
from mvsa_tune.tune.tensorboard import varying, write_trial
from test_store import outcome

CONFIG = Config(image_encoder="eye", text_encoder="ear", D=8, epochs=3)


@pytest.fixture
def events(tmp_path: Path) -> EventAccumulator:
    write_trial(tmp_path, CONFIG, outcome([[4, 6], [5, 7], [6, 6]]))
    accumulator = EventAccumulator(str(tmp_path / "eye+ear D=8 lr=1e-4 bs=512 epochs=3"))
    return accumulator.Reload()


def test_curves_are_the_mean_and_its_spread_over_replicates(events: EventAccumulator) -> None:
    tags = ("mean/val_acc", "spread/val_acc_low", "spread/val_acc_high")
    mean, low, high = ([event.value for event in events.Scalars(tag)] for tag in tags)
    np.testing.assert_allclose(mean, [0.5, 0.6, 0.6], rtol=1e-6)
    spread = np.std([0.4, 0.6], ddof=1)
    np.testing.assert_allclose(low, [0.5 - spread, 0.6 - spread, 0.6], rtol=1e-6)
    np.testing.assert_allclose(high, [0.5 + spread, 0.6 + spread, 0.6], rtol=1e-6)
    assert [event.step for event in events.Scalars("mean/val_loss")] == [1, 2, 3]


def test_the_hparams_page_has_the_configuration_and_the_scores(events: EventAccumulator) -> None:
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["image_encoder"].string_value == "eye"
    assert start.hparams["D"].number_value == 8 and start.hparams["lr"].number_value == 1e-4
    assert events.Scalars("validation/acc_best_mean")[0].value == pytest.approx((0.6 + 0.7) / 2)


def test_writing_a_trial_again_replaces_it(tmp_path: Path) -> None:
    for right in (4, 8):
        write_trial(tmp_path, CONFIG, outcome([[right, right]]))
    (log,) = tmp_path.iterdir()
    accumulator = EventAccumulator(str(log)).Reload()
    assert [event.value for event in accumulator.Scalars("mean/val_acc")] == pytest.approx([0.8])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("failing", ["flush", "write"])
def test_a_disk_that_is_full_is_an_error_and_the_earlier_log_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fails(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_trial(tmp_path, CONFIG, outcome([[4, 4]]))
    monkeypatch.setattr(f"tensorboard.compat.tensorflow_stub.io.gfile.GFile.{failing}", fails)
    with pytest.raises(OSError, match="No space left"):
        write_trial(tmp_path, CONFIG, outcome([[8, 8]]))
    (log,) = tmp_path.iterdir()
    accumulator = EventAccumulator(str(log)).Reload()
    assert [event.value for event in accumulator.Scalars("mean/val_acc")] == pytest.approx([0.4])


def test_names_stay_in_their_folder(tmp_path: Path) -> None:
    wild = Config(image_encoder="hf:some/../model", text_encoder="ear")
    write_trial(tmp_path / "logs", wild, outcome([[4, 6]]))
    (log,) = (tmp_path / "logs").iterdir()
    assert ":" not in log.name and len(list(log.iterdir())) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_long_name_is_cut_for_the_folder_and_whole_inside(tmp_path: Path) -> None:
    """Two paths of models, as people have them."""
    eye, ear = (f"hf:/home/someone/{'x' * 100}/{name}@mean" for name in ("picture model", "text model"))
    long = [Config(image_encoder=eye, text_encoder=ear, D=D, epochs=3) for D in (8, 9)]
    assert all(len(config.name.encode()) > 255 for config in long)
    for config in long:
        write_trial(tmp_path, config, outcome([[4, 6]]))
    folders = list(tmp_path.iterdir())
    assert {folder.name.rpartition(" ")[2] for folder in folders} == {config.id for config in long}
    inside = [EventAccumulator(str(folder)).Reload().Tensors("configuration/text_summary") for folder in folders]
    assert {events[0].tensor_proto.string_val[0].decode() for events in inside} == {config.name for config in long}


def test_the_hparams_page_shows_what_differs() -> None:
    assert varying([CONFIG, Config(image_encoder="eye", text_encoder="ear", D=9, epochs=3, ablation=1)]) == [
        "image_encoder", "D", "ablation",
    ]  # fmt: skip
    assert "lr" in varying([CONFIG])
    assert varying([CONFIG], ["D", "head"]) == ["head", "D"]  # of a search, what it searches
