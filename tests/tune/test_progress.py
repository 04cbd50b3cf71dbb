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
    assert lines[0].endswith(f"{FIRST.name}: 0.650 ± 0.071 (n 2) in 4.0 s")
    assert lines[1].endswith(f"{SECOND.name}: failed: no memory") and printed.err == ""
    assert lines[2].endswith(f"{THIRD.name}: stopped at epoch 1: 0.650 ± 0.071 (n 2) in 4.0 s")
    assert progress.best == (pytest.approx(0.65), FIRST.name) and not progress.running


def test_a_search_counts_trials_without_knowing_how_many_there_will_be(capsys: pytest.CaptureFixture[str]) -> None:
    run(quiet=False, expected=None)
    assert [line[:3] for line in capsys.readouterr().out.splitlines()] == ["[1 ", "[2 ", "[3 "]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    run(quiet=True)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
