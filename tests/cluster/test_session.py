"""How Ray is started and joined, as far as that needs no Ray."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from mvsa_tune import machine
from mvsa_tune.cluster import session
from mvsa_tune.cluster.session import joined_ray, local_ray
from mvsa_tune.errors import InputError
from mvsa_tune.sweeps import GRID


@pytest.fixture(autouse=True)
def _no_ray_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have left one running."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@contextmanager
def listening(reply: bytes | None) -> Iterator[str]:
    """Run a server that accepts connections and sends `reply`, or stays silent, as a stopped process does."""
    held = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            if reply is not None:
                connection.sendall(reply)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("reply", [None, b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_accepts_a_connection_and_is_no_ray_is_told_within_seconds(
    reply: bytes | None, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here by RAY_ADDRESS. Ray itself would try for minutes, and print warnings."""
    monkeypatch.setattr(session, "ANSWER_TIMEOUT", 0.5)
    with listening(reply) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        started = time.monotonic()
        assert GRID.main(["--data", str(tiny), "--pairs", "eye+ear"]) == 2
        assert time.monotonic() - started < 3
    told = capsys.readouterr().err
    assert f"--address {address}: no Ray cluster answers there" in told and told.count("\n") == 1


def test_a_server_of_http_2_answers_as_ray_does() -> None:
    with listening(bytes([0, 0, 18, 4, 0, 0, 0, 0, 0]) + bytes(18)) as address:
        session._connect(address)


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_rays_folder_is_short_whatever_the_environment_says_and_is_removed(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    long = tmp_path / ("x" * 60)
    long.mkdir()
    for wanted, is_taken in ((long, False), (Path("/var/tmp"), True)):
        monkeypatch.setenv(variable, str(wanted))
        monkeypatch.setattr(tempfile, "tempdir", None)
        with session._ray_folder() as folder:
            assert (Path(folder).parents[1] == wanted) == is_taken
            assert Path(folder).parent.stat().st_mode & 0o777 == 0o700
            # as Ray 2.60 names them, with the largest number that a process can have; macOS allows 103 bytes
            assert len(f"{folder}/session_2026-11-26_17-53-15_674394_4194304/sockets/plasma_store") <= 103
        assert not Path(folder).parent.exists()


@pytest.mark.ray
def test_sigterm_still_interrupts_once_ray_has_ended() -> None:
    """Ray leaves no handler when it ends: a sweep would die while it writes its tables."""
    code = """import os, signal, sys, time
from mvsa_tune.machine import report_errors
from mvsa_tune.cluster.session import local_ray
def command():
    with local_ray(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
sys.exit(report_errors(command, "name"))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130 and done.stderr.count("\n") == 1, done.stderr


def test_sigterm_interrupts_while_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler raises SystemExit(15)."""
    ended = []
    monkeypatch.setattr("ray.init", lambda **options: sys.exit(15))
    monkeypatch.setattr("ray.shutdown", lambda: ended.append(True))
    with machine.interruptible(), pytest.raises(KeyboardInterrupt), local_ray(1):
        pass
    assert ended


def test_a_folder_that_is_full_is_not_rays_and_without_any_a_line_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1 << 20})
    full = ["/var/tmp"]
    monkeypatch.setenv("RAY_TMPDIR", "/var/tmp")
    monkeypatch.setattr(
        psutil, "disk_usage", lambda path: usage if path in full else type("Usage", (), {"free": 1 << 30})
    )
    with session._ray_folder() as folder:
        assert not folder.startswith("/var/tmp")
    monkeypatch.setattr(psutil, "disk_usage", lambda path: usage)
    with (
        pytest.raises(InputError, match=r"set RAY_TMPDIR: Ray needs a folder .* 24 bytes and 16 MiB free"),
        local_ray(1),
    ):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.9.8.7"])
def test_a_token_that_is_there_is_for_clusters_of_this_machine(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray has it for `auto`; another machine gets it only where RAY_AUTH_MODE=token says so."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    session._use_token(f"{host}:6379")
    assert "RAY_AUTH_MODE" not in os.environ  # there is none
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("a" * 64)
    session._use_token(f"{host}:6379")
    assert os.environ.get("RAY_AUTH_MODE") == (None if host == "10.9.8.7" else "token")


def test_auto_that_finds_an_address_of_a_ray_long_dead_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `ray start` has left in its folder after a crash."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: address)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(InputError, match=r"--address auto: no Ray cluster answers there \(.*refused\)"),
        joined_ray("auto"),
    ):
        pass
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda folder: None)
    with (
        pytest.raises(InputError, match=r"--address auto: no Ray cluster answers there \(Could not find"),
        joined_ray("auto"),
    ):
        pass


def test_a_plan_for_a_ray_that_is_in_use_has_no_more_than_that_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: resources)
    for cpus, gpus, expected in ((1, 0, 1), (10_000, 0, machine.cpu_count()), (0, 1, 0)):
        resources = {"CPU": float(cpus), "GPU": float(gpus)} if cpus else {"memory": 1.0}
        assert (session.this_machine().cpus, session.this_machine().gpus) == (expected, 0)


def test_another_ray_than_the_one_in_use_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr(session, "_address_in_use", lambda: "10.0.0.1:6379")
    with (
        pytest.raises(InputError, match=r"uses the Ray at 10\.0\.0\.1:6379; call ray\.shutdown\(\)"),
        joined_ray("1:2"),
    ):
        pass


@pytest.mark.parametrize("has_home", [True, False])
def test_a_local_ray_gets_a_token_where_none_can_be_written(has_home: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_init", lambda **options: tokens.append(os.environ.get("RAY_AUTH_TOKEN")))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr(machine, "has_home", lambda *below: has_home)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    tokens: list[str | None] = []
    with local_ray(1):
        pass
    assert [len(token or "") for token in tokens] == [0 if has_home else 64]
