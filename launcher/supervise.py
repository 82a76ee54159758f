"""``python -m launcher.supervise LOCK [--remove]``: this process is supervisord.

Runs ``supervisord.conf`` in this very process until it is told to stop, then removes the runtime
directory. Started by ``launcher/start.py`` through exec. ``supervisorctl reload`` and SIGHUP (its
terminal is closed) end the server: settings are resolved once. Under nohup it stays.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import ServerOptions

from common.failure import FAILURE_FILE
from common.logs import say
from common.settings import load
from launcher.children import PACKAGES_ROOT, in_checkout
from launcher.keeper import Keeper
from launcher.runtime import STOP_SIGNALS, RuntimeDirectory

_PR_SET_PDEATHSIG = 1
_NO_WORDS = "a process cannot start: the lines above say why"
"""Where there was no room on the disk for a sentence."""


def main(arguments: list[str]) -> int:
    """Supervise; the exit status: 0 after a stop, 1 if a process could not start."""
    as_json = load().json_output
    runtime = RuntimeDirectory(
        Path(load().runtime_dir), int(arguments[0]), temporary="--remove" in arguments
    )
    failure = runtime.path / FAILURE_FILE
    sentence = ""
    try:
        for number in STOP_SIGNALS:
            signal.signal(number, _stop_early)
        signal.signal(signal.SIGUSR1, _ignore)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        with _WritableOutput():
            run(configuration(), failure)
        if failure.exists():
            sentence = failure.read_text(errors="replace").strip() or _NO_WORDS
    finally:
        runtime.remove()
    if sentence:
        print(_line(sentence, as_json=as_json), file=sys.stderr, flush=True)
    return 1 if sentence else 0


def _stop_early(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _ignore(number: int, frame: FrameType | None) -> None:
    """USR1 has logs opened anew elsewhere. Nothing to do here, and no reason to end.

    Not ``SIG_IGN``: the processes that are started would inherit it.
    """


def configuration() -> Path:
    """``supervisord.conf``: at the root of a checkout, in this package when installed."""
    return (PACKAGES_ROOT if in_checkout() else Path(__file__).parent) / "supervisord.conf"


def run(path: Path, failure: Path) -> None:
    """Be supervisord until it is stopped."""
    settings = load()
    options = _Options(
        _death_signal(),
        settings.graceful_termination_timeout,
        as_json=settings.json_output,
        failure=failure,
    )
    options.realize(["-c", str(path)])
    options.first = True
    options.test = False
    with _Alarm() as alarm:
        options.get_socket_map()[alarm.fileno] = alarm
        with contextlib.suppress(ExitNow):
            Keeper(options, options.may_finish).main()
    options.close_httpservers()
    options.close_logger()


class _Options(ServerOptions):  # type: ignore[misc] # supervisor has no types
    """supervisord's options; its children end when it is killed.

    The first Ctrl-C lets running requests finish, and says so; the second ends everything. Whoever
    could not start is told why at the end, and has nothing that could finish.
    """

    def __init__(
        self, prepare_child: Callable[[], None], grace_s: int, *, as_json: bool, failure: Path
    ) -> None:
        super().__init__()
        self._failure = failure
        self._prepare_child = prepare_child
        self._grace_s = grace_s
        self._as_json = as_json
        self._stopping = False
        self._hurried = False

    def may_finish(self) -> bool:
        """Whether running requests still have their time."""
        return not self._hurried and not self._failure.exists()

    def setsignals(self) -> None:
        """As supervisord does; but a SIGHUP that was ignored before, as by nohup, still is."""
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().setsignals()
        if ignored:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def get_signal(self) -> int | None:
        """The next signal, for supervisord's loop."""
        number: int | None = super().get_signal()
        if number in STOP_SIGNALS:
            if not self._stopping and not self._failure.exists():
                again = "; Ctrl-C again ends them now" if number == signal.SIGINT else ""
                sentence = f"stopping; running requests may finish within {self._grace_s} s{again}"
                _write(_line(sentence, as_json=self._as_json, level=logging.INFO))
            elif number == signal.SIGINT:
                self._hurried = True
                _kill_children()
            self._stopping = True
        return number

    def setpgrp(self) -> None:
        """Called in every child between fork and exec."""
        super().setpgrp()
        for number in STOP_SIGNALS:
            # RACE: a stop that comes before exec would be noted by our handler, and be lost.
            signal.signal(number, signal.SIG_DFL)
        self._prepare_child()


class _Alarm:
    """Wakes supervisord's loop at its start and at every signal, a child's death above all.

    After a signal the loop turns twice: it tells the listener of a death one turn after it has
    noticed it. To the loop this is one more connection to read.

    PERF: without it the loop acts at its next tick: up to 1 s later at the start, at a death, at a
    restart, and once per group of processes at a stop.
    """

    _AGAIN = b"\0"  # no signal's number

    def __init__(self) -> None:
        self.fileno, self._writable = os.pipe()
        os.set_blocking(self.fileno, False)
        os.set_blocking(self._writable, False)

    def __enter__(self) -> "_Alarm":
        self._previous = signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        os.write(self._writable, self._AGAIN)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._previous)

    def readable(self) -> bool:
        """Asked by the loop."""
        return True

    def writable(self) -> bool:
        """Asked by the loop."""
        return False

    def handle_read_event(self) -> None:
        """Forget the signals: the loop looks for them itself."""
        with contextlib.suppress(BlockingIOError):
            if os.read(self.fileno, 1024).strip(self._AGAIN):
                os.write(self._writable, self._AGAIN)

    def handle_error(self) -> None:
        """Never needed; asked for by the loop."""


def _line(sentence: str, *, as_json: bool, level: int = logging.ERROR) -> str:
    if as_json:
        return say("supervisor", sentence, json_output=True, level=level)
    return f"millrace: {sentence}"


def _write(line: str) -> None:
    """To the output, if it can be written: a full disk must not keep anybody from stopping."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())


def _kill_children() -> None:
    """End every process group that was started here."""
    me = os.getpid()
    for pid in map(int, Path(f"/proc/{me}/task/{me}/children").read_text().split()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _death_signal() -> Callable[[], None]:
    """Asks the kernel for SIGTERM when the parent dies, however it dies. Linux only."""
    try:
        prctl: Any = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return lambda: None
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # RACE: supervisord died between fork and here
            os._exit(1)

    return ask


class _WritableOutput:
    """Makes ``/dev/fd/1``, where the programs' output goes, something that can be opened.

    A socket, or a pipe that belongs to another user, cannot be opened by name: then a small process
    hands on what is written to a pipe. supervisord's own complaints about output that cannot be
    written (a full disk) must not stop it, so they go nowhere.
    """

    def __enter__(self) -> None:
        self._relay = 0
        self._stderr = sys.stderr
        sys.stderr = open(os.devnull, "w")
        try:
            os.close(os.open("/dev/fd/1", os.O_WRONLY | os.O_APPEND))
        except OSError:
            self._relay = _start_relay()

    def __exit__(self, *error: object) -> None:
        sys.stderr = self._stderr
        if self._relay:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            try:
                os.waitpid(self._relay, 0)
            except ChildProcessError:
                return


def _start_relay() -> int:
    readable, writable = os.pipe()
    pid = os.fork()
    if pid:
        os.close(readable)
        os.dup2(writable, 1)
        os.close(writable)
        return pid
    os.close(writable)
    for number in (*STOP_SIGNALS, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while data := os.read(readable, 1 << 16):
        try:
            while data:
                data = data[os.write(1, data) :]
        except OSError:
            continue
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
