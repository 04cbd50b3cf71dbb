import pytest

from mvsa_tune.progress import Progress


def run(*, quiet: bool) -> Progress:
    progress = Progress({"a": 1.0, "b": 3.0}, quiet=quiet)
    progress.start("a")
    progress.finish("a", "first", 0.5, "0.500 (n 1)")
    progress.start("b")
    progress.finish("b", "second", None, "failed: no memory")
    progress.close()
    return progress


def test_a_log_file_gets_a_line_for_each_trial_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress = run(quiet=False)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("[1/2") and lines[0].endswith("first: 0.500 (n 1)")
    assert lines[1].endswith("second: failed: no memory") and printed.err == ""
    assert progress.best == (0.5, "first") and not progress.running


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    run(quiet=True)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
