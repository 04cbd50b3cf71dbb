"""How a sweep ends when Tune raises; the rest of it is tested by whole sweeps."""

import pytest
from ray.exceptions import OutOfMemoryError
from ray.tune import Tuner

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.sweeps import GRID


@pytest.mark.ray
def test_a_machine_without_memory_ends_the_sweep_with_one_line(
    demo: Dataset, tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(self: Tuner) -> None:  # what Tune raises where Ray's memory monitor ends a trial's process
        raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("1 worker(s) were killed")

    monkeypatch.setattr(Tuner, "fit", fit)
    flags = ["--data", str(demo.folder), "--pairs", "demo-pixels+demo-words", "--results", str(tmp_path), "--quiet"]
    assert GRID.main([*flags, "--D", "4", "--cpus-per-trial", "1"]) == 2
    told = capsys.readouterr().err
    assert "too little memory left" in told and "--cpus-per-trial 2" in told and "Traceback" not in told
