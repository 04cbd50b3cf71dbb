import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from mvsa_tune.config import Config
from mvsa_tune.training.result import Curves, TrialResult, join
from mvsa_tune.tune.tensorboard import TrialLog, varying
from test_store import outcome

NAME = "eye+ear D=8 lr=1e-4 bs=512 epochs=3"
CONFIG = Config(image_encoder="eye", text_encoder="ear", D=8, epochs=3)


def write_trial(folder: Path, config: Config, result: TrialResult) -> None:
    TrialLog(folder, config).end(result)


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / NAME)).Reload()


def curve(events: EventAccumulator, tag: str = "mean/val_acc") -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


@pytest.fixture
def events(tmp_path: Path) -> EventAccumulator:
    write_trial(tmp_path, CONFIG, outcome([[4, 6], [5, 7], [6, 6]]))
    return read(tmp_path)


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
    assert events.Scalars("score/acc_best_mean")[0].value == pytest.approx((0.6 + 0.7) / 2)
    cross_fitted = outcome([[4, 6], [5, 7], [6, 6]]).correctness.accuracy.mean()
    assert events.Scalars("score/acc_cross_mean")[0].value == pytest.approx(cross_fitted)
    assert ended(events) == "STATUS_SUCCESS"


def ended(events: EventAccumulator) -> str:
    content = events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    status = plugin_data_pb2.HParamsPluginData.FromString(content).session_end_info.status
    return str(api_pb2.Status.Name(status))


def test_a_running_log_grows_and_keeps_the_time_of_each_epoch(tmp_path: Path) -> None:
    log = TrialLog(tmp_path, CONFIG)
    shown = EventAccumulator(str(tmp_path / NAME))  # as a TensorBoard that is open all the time
    whole = timed(outcome([[4, 6], [5, 7], [6, 6]]), 100)
    for epochs in (1, 2):
        log.update(Curves.of(cut(whole, epochs)))
        assert curve(shown.Reload()) == [(1, 0.5), (2, 0.6)][:epochs]
    assert "_hparams_/session_end_info" not in shown.PluginTagToContent("hparams")
    log.end(whole)
    assert curve(shown.Reload()) == [(1, 0.5), (2, 0.6), (3, 0.6)] == curve(read(tmp_path))
    assert [event.wall_time for event in shown.Scalars("mean/val_acc")] == [100, 101, 102]


def test_replicates_that_are_trained_one_after_another_give_one_line_without_a_step_back(tmp_path: Path) -> None:
    log = TrialLog(tmp_path, CONFIG)
    shown = EventAccumulator(str(tmp_path / NAME))
    first, second = timed(outcome([[4], [5], [6]]), 100), timed(outcome([[6], [7], [6]]), 200)
    log.update(Curves.of(first))
    assert curve(shown.Reload()) == [(1, 0.4), (2, 0.5), (3, 0.6)]
    log.update(Curves.of(first, cut(second, 1)))
    assert curve(shown.Reload()) == [(1, 0.5), (2, 0.5), (3, 0.6)]
    assert shown.Scalars("spread/val_acc_low")[0].value == pytest.approx(0.5 - np.std([0.4, 0.6], ddof=1))
    log.end(join([first, second]))
    assert curve(shown.Reload()) == [(1, 0.5), (2, 0.6), (3, 0.6)] == curve(read(tmp_path))
    assert [event.wall_time for event in shown.Scalars("mean/val_acc")] == [100, 101, 102]
    assert len(shown.Scalars("score/acc_best_mean")) == 1


def test_a_trial_that_begins_again_shows_no_zigzag(tmp_path: Path) -> None:
    shown = EventAccumulator(str(tmp_path / NAME))
    whole = timed(outcome([[4, 6], [5, 7], [6, 6]]), 100)
    killed = TrialLog(tmp_path, CONFIG)
    killed.update(Curves.of(cut(whole, 2)))
    killed.update(Curves.of(cut(whole, 1)))  # tried again in the same sweep, to the same numbers
    assert curve(shown.Reload()) == [(1, 0.5), (2, 0.6)]
    with killed.path.open("ab") as file:
        file.write(b"half a record")
    again = TrialLog(tmp_path, CONFIG)  # of the next command
    again.update(Curves.of(cut(whole, 1)))
    assert curve(read(tmp_path)) == [(1, 0.5)]
    again.end(whole)
    assert curve(read(tmp_path)) == [(1, 0.5), (2, 0.6), (3, 0.6)]
    assert [path.name for path in (tmp_path / NAME).iterdir()] == [again.path.name]


def test_a_trial_that_fails_says_so_on_the_hparams_page(tmp_path: Path) -> None:
    log = TrialLog(tmp_path, CONFIG)
    log.fail()
    assert not list(tmp_path.iterdir())  # nothing was trained
    log.update(Curves.of(outcome([[4, 6]])))
    log.fail()
    assert ended(read(tmp_path)) == "STATUS_FAILURE"
    lost = outcome([[4, 6]])
    lost.val_loss[0, 0] = np.nan
    write_trial(tmp_path, CONFIG, lost)
    assert ended(read(tmp_path)) == "STATUS_FAILURE"


def timed(result: TrialResult, at: float) -> TrialResult:
    """The result with epochs that end a second after one another."""
    times = at + np.arange(result.epochs, dtype=float)
    return replace(result, trained_at=np.repeat(times[:, None], result.accuracy.shape[1], axis=1))


def cut(result: TrialResult, epochs: int) -> TrialResult:
    """The result as it was after some epochs."""
    names = ("train_loss", "val_loss", "confusion", "predicted", "trained_at")
    return replace(result, **{name: getattr(result, name)[:epochs] for name in names})


def test_writing_a_trial_again_replaces_it(tmp_path: Path) -> None:
    for right in (4, 8):
        write_trial(tmp_path, CONFIG, outcome([[right, right]]))
    (log,) = tmp_path.iterdir()
    accumulator = EventAccumulator(str(log)).Reload()
    assert [event.value for event in accumulator.Scalars("mean/val_acc")] == pytest.approx([0.8])


def test_a_disk_that_is_full_is_an_error_and_the_earlier_log_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_trial(tmp_path, CONFIG, outcome([[4, 4]]))
    monkeypatch.setattr("mvsa_tune.files.sync", fails)
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
