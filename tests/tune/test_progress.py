import time

import pytest

from mvsa_tune.config import Config
from mvsa_tune.tune.progress import Progress
from test_rows import outcome

FIRST, SECOND, THIRD = (Config(image_encoder="eye", text_encoder="ear", D=D, epochs=2) for D in (4, 8, 16))


def run(*, quiet: bool, expected: int | None = 3) -> Progress:
    costs = {FIRST.id: 1.0, SECOND.id: 3.0, THIRD.id: 1.0} if expected else {}
    progress = Progress(expected, quiet=quiet)
    progress.weigh(costs)
    progress.start(FIRST.id)
    progress.finish(FIRST, outcome())
    progress.start(SECOND.id)
    progress.fail(SECOND, "no memory")
    progress.start(THIRD.id)
    progress.finish(THIRD, outcome(epochs=1))
    progress.close()
    return progress


def test_a_log_file_gets_a_line_for_each_trial_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress = run(quiet=False)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("[1/3")
    accuracy = outcome().correctness.accuracy  # by which configurations are ranked
    cross_fitted = f"{accuracy.mean():.3f} ± {accuracy.std(ddof=1):.3f} (n 2) in 4.0 s"
    assert lines[0].endswith(f"{FIRST.name}: {cross_fitted}")
    assert lines[1].endswith(f"{SECOND.name}: failed: no memory") and printed.err == ""
    assert f"{THIRD.name}: stopped at epoch 1: 0." in lines[2]
    assert progress.best == (pytest.approx(accuracy.mean()), FIRST.name) and not progress.running


def test_a_search_counts_trials_without_knowing_how_many_there_will_be(capsys: pytest.CaptureFixture[str]) -> None:
    run(quiet=False, expected=None)
    assert [line[:3] for line in capsys.readouterr().out.splitlines()] == ["[1 ", "[2 ", "[3 "]


def test_without_a_terminal_a_line_now_and_then_says_what_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvsa_tune.tune.progress.LINE_SECONDS", 0.05)
    progress = Progress(3, quiet=False)
    time.sleep(0.1)
    progress.weigh({FIRST.id: 100.0, SECOND.id: 100.0, THIRD.id: 200.0})
    progress.start(FIRST.id)
    time.sleep(0.1)
    progress.advance(FIRST.id, 0.5, accuracy=0.71)
    time.sleep(0.1)
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[0/3") and lines[0].endswith("starting Ray")
    assert any(line.endswith("in the first epochs") for line in lines)
    assert lines[-1].endswith("1 running (at 0.710)")


def test_the_remaining_time_is_the_estimate_until_the_work_done_tells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("mvsa_tune.tune.progress.time.perf_counter", lambda: now[0])
    progress = Progress(3, quiet=False)
    progress.weigh({FIRST.id: 100.0, SECOND.id: 100.0, THIRD.id: 200.0})
    assert progress.remaining is None
    progress.expect(65, at_most=True)
    assert "about 65 s at most" in capsys.readouterr().out
    now[0] += 20
    assert progress.remaining == pytest.approx(45)
    progress.start(FIRST.id)
    now[0] += 1
    progress.advance(FIRST.id, 0.01)  # too little to tell from: it would be seven minutes
    assert progress.remaining == pytest.approx(44)
    now[0] += 9
    progress.advance(FIRST.id, 0.5)  # an eighth of the work, in 10 s
    assert progress.remaining == pytest.approx(70)
    progress.close()


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    run(quiet=True)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
