"""What this machine gives: CPUs, GPUs, memory, signals, a home folder, and streams that show what is printed."""

import atexit
import codecs
import ctypes
import os
import platform
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO, cast

import psutil

from mvsa_tune import NUMERICS_VERSION, __version__
from mvsa_tune.errors import InputError

# What ends a command: Ctrl-C, `kill`, a connection that breaks, Ctrl-\\, and Slurm's warnings before the end.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]  # Windows lacks some
_interrupted = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the signals that end a command raise KeyboardInterrupt for the time of a `with`, and remember it.

    In another thread than the main one, where Python sets no handlers, do nothing.
    """
    _interrupted.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handle_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def handle_signals() -> None:
    """Set the handlers of `interruptible`; again after a library has replaced them by its own.

    A signal that is ignored stays so: a shell's background job does not react to Ctrl-C, nor what `nohup` runs to HUP.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Keep signals of a whole process group from the processes started in a `with`: this one gets them, and ends those.

    A process inherits which signals are blocked. SIGTERM is not: by it Ray ends its own processes.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(SIGNALS) - {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(*arguments: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def is_interrupted() -> bool:
    """Return whether a signal has come since `interruptible` began, even if its exception was swallowed."""
    return _interrupted.is_set()


def check_interrupted() -> None:
    """Raise KeyboardInterrupt if `is_interrupted`."""
    if is_interrupted():
        raise KeyboardInterrupt


@contextmanager
def shown_output() -> Iterator[None]:
    """Drop what cannot be shown for the time of a `with`: a terminal or a reader that is gone ends no command."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Shown(stream)) if stream else stream for stream in before)
    try:
        yield
    finally:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        sys.stdout, sys.stderr = before


class _Shown:
    """A stream that never raises: signs that its encoding lacks are replaced, and a file that fails becomes no file."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        with suppress(AttributeError):  # a stream that somebody has put there
            stream.reconfigure(errors="mvsa_tune")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError:
            self._close()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self._close()

    def _close(self) -> None:
        """Let what follows go nowhere, what is still buffered too: at exit it would fail again."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def further_stderr() -> TextIO:
    """Return a stream to where stderr leads now, which never raises and stays when stderr is led elsewhere."""
    stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding)
    return cast(TextIO, _Shown(stream))


# What plain ASCII writes for a sign; any other becomes a question mark.
_PLAIN = {"−": "-", "–": "-", "±": "+-", "×": "x", "→": "->", "…": "..."}


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error("mvsa_tune", _replaced)


def settle() -> None:
    """Set what libraries read when they are imported: a home folder, if none can be used, and the CPUs of a quota.

    A container may have neither a home folder nor a user of that number; several libraries end with a traceback then.
    """
    if not has_home():
        os.environ["HOME"] = _temporary_folder()
    elif not has_home(".config"):
        os.environ.setdefault("MPLCONFIGDIR", _temporary_folder())  # matplotlib's, which it would warn of
    if cpu_count() < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cpu_count()))


def _temporary_folder() -> str:
    folder = tempfile.mkdtemp(prefix="mvsa-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def has_home(*below: str) -> bool:
    """Return whether there is a home folder; with names `below` it, whether files can be made in that folder."""
    try:
        folder = Path.home().joinpath(*below)
        existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    except (OSError, RuntimeError):  # there is neither HOME nor a user of this number
        return False
    return os.access(existing, os.W_OK) if below else existing == folder


def cpu_count(root: Path = Path("/")) -> int:
    """Return the number of CPUs that this process may use: its affinity, or the whole CPUs of a container's quota.

    More threads than that would be stopped together for a part of each period. `root` is for tests.
    """
    quotas = []
    for folder in _control_groups("cpu", root):
        with suppress(OSError, ValueError):  # no such file, or no quota: "max"
            quota, period = (folder / "cpu.max").read_text().split()
            quotas.append(int(quota) // int(period))
        with suppress(OSError):
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            quotas.extend([int(quota) // int(period)] if int(quota) > 0 else [])
    return max(1, min([_affinity(), *quotas]))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process may still allocate, of the machine's and of its container's.

    What a container has read from files counts as used there, but is given up when memory is needed. `root` is for
    tests.
    """
    available = [psutil.virtual_memory().available]
    for folder in _control_groups("memory", root):
        for limit, usage, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with suppress(OSError, ValueError):  # no such file, or no limit: "max"
                most, used = (int((folder / name).read_text()) for name in (limit, usage))
                pairs = map(str.split, (folder / "memory.stat").read_text().splitlines())
                available.append(max(0, most - used + int(dict(pairs).get(cached, 0))))
    return min(available)


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that limit this process, of version 2 and of a controller of version 1.

    A container may see its own group as the topmost, whatever path Linux gives; paths that are not there do no harm.
    """
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            for mounted in [controller] if controllers else ["", "unified"]:
                top = root / "sys/fs/cgroup" / mounted
                group = top / path.lstrip("/")
                yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def gpu_count() -> int:
    """Return the number of GPUs that torch can use; on a Linux without a driver 0, without the import of torch."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of CUDA, of ROCm, of the Windows Subsystem for Linux
    if sys.platform == "linux" and not any(map(os.path.exists, drivers)):
        return 0
    import torch

    return torch.cuda.device_count()


def versions() -> dict[str, str]:
    """Return the versions of what numbers depend on, by name."""
    python = ".".join(platform.python_version_tuple()[:2])
    libraries = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"mvsa_tune": f"{__version__} with numerics {NUMERICS_VERSION}", "Python": python, **libraries}


def report_errors(command: Callable[[], int | None], program: str) -> int:
    """Run a command and return its exit code: 2 for an InputError, 130 for a signal, both with one line on stderr."""
    settle()
    with shown_output():
        try:
            with interruptible():
                return command() or 0
        except InputError as error:
            print(f"{program}: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{program}: interrupted; what was finished is kept, and the same command goes on", file=sys.stderr)
            return 130


def keep_freed_memory() -> None:
    """Let glibc keep the memory that this process frees, for its next allocations; without glibc do nothing.

    By default glibc returns every large block to the kernel, which zeroes each page again: for the activations of an
    encoder or a stack that takes longer than computing them (bench/LOG.md).
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX of malloc.h
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
