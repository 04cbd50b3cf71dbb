"""The machine is not always like ours: quotas of containers, signals, streams that cannot show what is printed."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from mvsa_tune import machine


def control_groups(root: Path, own: str, files: dict[str, str]) -> Path:
    """Write a made-up root: the groups of this process, and files of the control groups."""
    texts = {"proc/self/cgroup": own} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "4:memory:/docker/ab\n3:cpuset:/docker/ab\n1:cpu,cpuacct:/docker/ab\n"
QUOTAS = {
    "v2 in a container": ("0::/\n", {"cpu.max": "200000 100000"}, 2),
    "v2 of a group above": ("0::/user/job\n", {"user/cpu.max": "300000 100000", "user/job/cpu.max": "max 100000"}, 3),
    "v2 without a quota": ("0::/\n", {"cpu.max": "max 100000"}, 64),
    "v2 beside v1": ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "unified/cpu.max": "100000 100000"}, 1),
    "a part of a CPU": ("0::/\n", {"cpu.max": "50000 100000"}, 1),
    "whole CPUs alone": ("0::/\n", {"cpu.max": "250000 100000"}, 2),
    "more than there are": ("0::/\n", {"cpu.max": "6500000 100000"}, 64),
    "v1 in a container": (V1, {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
    "v1 on the host": (
        V1,
        {
            "cpu/docker/ab/cpu.cfs_quota_us": "50000",
            "cpu/docker/ab/cpu.cfs_period_us": "10000",
            "cpu/cpu.cfs_quota_us": "-1",
        },
        5,
    ),
    "v1 without a quota": (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    "no control groups": ("", {}, 64),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_the_cpus_are_the_quotas_of_a_container(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, files, expected = QUOTAS[case]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    assert machine.cpu_count(control_groups(tmp_path, own, files)) == expected


MEMORY = {
    "v2": ("0::/\n", {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 1\ninactive_file 50\n"}, 350),
    "v2 without a limit": ("0::/\n", {"memory.max": "max", "memory.current": "700", "memory.stat": ""}, 2000),
    "v1": (
        V1,
        {
            "memory/memory.limit_in_bytes": "1500",
            "memory/memory.usage_in_bytes": "500",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
        },
        1100,
    ),
    "v1 without a limit": (
        V1,
        {
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": "500",
            "memory/memory.stat": "",
        },
        2000,
    ),
    "a limit below what is used": ("0::/\n", {"memory.max": "10", "memory.current": "11", "memory.stat": ""}, 0),
    "none": ("", {}, 2000),
}


@pytest.mark.parametrize("case", MEMORY)
def test_the_memory_is_what_a_container_has_left(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, files, expected = MEMORY[case]
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2000}))
    assert machine.available_memory(control_groups(tmp_path, own, files)) == expected


def test_a_quota_limits_the_threads_of_libraries_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_count", lambda: 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    machine.settle()
    assert os.environ["OMP_NUM_THREADS"] == "0"


@pytest.mark.parametrize("lack", ["os.environ['HOME'] = '/proc/none'", "del os.environ['HOME']"])
def test_a_process_without_a_home_folder_gets_one_for_its_time(lack: str) -> None:
    """HOME that cannot be made; or no HOME and no user of this number, as in a container."""
    code = f"""import os, pwd
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown
{lack}
from pathlib import Path
from mvsa_tune import machine
machine.settle()
print(Path.home(), Path.home().is_dir())"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    folder, exists = done.stdout.split()
    assert exists == "True" and not Path(folder).exists()


def test_a_folder_below_home_counts_only_if_files_can_be_made_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine.has_home() and machine.has_home(".ray")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert machine.has_home() and not machine.has_home(".ray")
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert not machine.has_home()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "utf-8"])
def test_signs_that_an_encoding_lacks_are_replaced(encoding: str) -> None:
    code = """from mvsa_tune.machine import report_errors
def command():
    print("0.5 ± 0.1, −1 × 2 → 3 … 音乐 \\udce9")
report_errors(command, "name")"""
    variables = {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, check=True)
    printed = done.stdout.decode(encoding)
    expected = {
        "ascii": "0.5 +- 0.1, -1 x 2 -> 3 ... ?? ?",
        "cp1252": "0.5 ± 0.1, -1 × 2 -> 3 … ?? ?",
        "gbk": "0.5 ± 0.1, -1 × 2 → 3 … 音乐 ?",
        "utf-8": "0.5 ± 0.1, −1 × 2 → 3 … 音乐 ?",
    }
    assert printed.strip() == expected[encoding] and not done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_command_goes_on_where_nobody_reads_what_it_prints(stream: str, tmp_path: Path) -> None:
    """A pipe whose reader is gone, and a terminal that was closed (its writes give EIO)."""
    code = f"""import sys
from mvsa_tune.machine import report_errors
def command():
    for line in range(10_000):
        print("a line of a table", file=sys.{stream}, flush=line % 2)
    open({str(tmp_path / "done")!r}, "w").close()
sys.exit(report_errors(command, "name"))"""
    for shown, given in (os.pipe(), os.openpty()):
        process = subprocess.Popen([sys.executable, "-c", code], **{stream: given})  # type: ignore[call-overload]
        os.close(given)
        os.close(shown)
        assert process.wait(60) == 0
        (tmp_path / "done").unlink()


def test_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), machine.shown_output():
        print("shown")
        _ = 1 / 0
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "shown\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_every_signal_that_ends_a_command_interrupts_it_and_handlers_are_given_back(name: str) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with machine.interruptible(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
        sum(range(1000))
    assert signal.getsignal(number) is before and machine.is_interrupted()


def test_a_signal_that_is_ignored_stays_so_as_nohup_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with machine.interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert not machine.is_interrupted()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_of_the_whole_group_spares_what_was_started_and_reaches_this_process_later() -> None:
    with machine.interruptible(), pytest.raises(KeyboardInterrupt), machine.signals_kept():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        for number in (signal.SIGHUP, signal.SIGUSR1):
            child.send_signal(number)
        os.kill(os.getpid(), signal.SIGHUP)
        assert not machine.is_interrupted()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.terminate()  # as Ray's are ended
    assert child.wait(10) == -signal.SIGTERM


def test_commands_run_in_any_thread() -> None:
    def run() -> None:
        with machine.interruptible():
            machine.handle_signals()
            ended.append(True)

    ended: list[bool] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ended


class Swallows:
    """An object in whose destructor exceptions are lost, as Python has it."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))  # the signal is handled here


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_is_swallowed_is_remembered() -> None:
    with machine.interruptible():
        machine.check_interrupted()
        Swallows()
        with pytest.raises(KeyboardInterrupt):
            machine.check_interrupted()
    with machine.interruptible():
        machine.check_interrupted()  # forgotten by the next command
