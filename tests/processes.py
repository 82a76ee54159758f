"""Processes that tests start: gone when the test is over, however it ends.

Ends, by pid, what was started here and nothing else. Runs in the tests' process, in its main
thread; knows nothing of what the processes do.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any, NamedTuple

END_LIMIT_S = 20
_TIED = ("setpriv", "--pdeathsig", "KILL")
"""Has the kernel kill the command when the thread that has started it ends.

RACE: not in the first millisecond, before this has told the kernel so."""

Take = Callable[[str | None], None]
"""Is given a line of output, and None when there will be no more."""


class _Entry(NamedTuple):
    """Of the process table."""

    pid: int
    state: str
    parent: int
    session: int


@contextmanager
def started(
    command: Sequence[str], *, take: Take | None = None, **options: Any
) -> Iterator["Popen[Any]"]:
    """A process; in the end, whatever runs of it and of those that it has started is killed.

    An assertion, the time limit of pytest-timeout (by its signal) and Ctrl-C are exceptions in the
    main thread, and lead out of here. Where pytest itself is killed (its time limit by a thread,
    xdist when Ctrl-C takes more than 10 s) nothing leads out, and the kernel kills what we have
    started; those which that has started notice the end of their parent, as in operation.

    ``take`` gets the output, line by line, on a thread. ``options`` are those of ``Popen``.
    """
    assert threading.current_thread() is threading.main_thread(), "the process would end with it"
    if take is not None:
        options |= {"stdout": PIPE, "stderr": STDOUT}
    process = Popen([*_TIED, *command], start_new_session=True, **options)
    reader = None
    try:
        if take is not None:
            reader = threading.Thread(target=_read, args=(process.stdout, take), daemon=True)
            reader.start()
        yield process
    finally:
        end(process)
        if reader is not None:
            reader.join(END_LIMIT_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was never read need not arrive
                    pipe.close()


def end(process: "Popen[Any]") -> None:
    """Kill a process and those that it has started, whoever their parents are by now."""
    try:
        _kill(process)
    except BaseException:  # RACE: the time limit, or Ctrl-C, may come just now
        _kill(process)
        raise


def children_of(root: int) -> list[int]:
    """All descendants of a process, zombies among them."""
    return _below(root, _table())


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    entry = _entry(Path(f"/proc/{pid}"))
    return entry is not None and entry.state != "Z"


def command_line(pid: int) -> str:
    """The command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _read(pipe: Any, take: Take) -> None:
    for line in pipe:
        take(line.decode(errors="replace").rstrip())
    take(None)


def _kill(process: "Popen[Any]") -> None:
    limit = time.monotonic() + END_LIMIT_S
    while left := _family(process):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < limit, f"processes do not end: {left}"
        time.sleep(0.005)
    process.wait(END_LIMIT_S)


def _family(process: "Popen[Any]") -> list[int]:
    """Pids of what runs: itself, those below it, and those of its session."""
    is_reaped = process.poll() is not None
    table = _table()
    root = process.pid
    # RACE: the pid may be a stranger's since. While our session has members, it is nobody's.
    if is_reaped and any(entry.pid == root for entry in table):
        return []
    below = {root, *_below(root, table)}
    return [
        entry.pid
        for entry in table
        if entry.state != "Z" and (entry.pid in below or entry.session == root)
    ]


def _below(root: int, table: list[_Entry]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in table:
        children.setdefault(entry.parent, []).append(entry.pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return found


def _table() -> list[_Entry]:
    places = [place for place in Path("/proc").iterdir() if place.name.isdigit()]
    return [entry for place in places if (entry := _entry(place)) is not None]


def _entry(place: Path) -> _Entry | None:
    """None: it is gone."""
    try:
        state, parent, _, session = (place / "stat").read_text().rsplit(")", 1)[1].split()[:4]
    except OSError:
        return None
    return _Entry(int(place.name), state, int(parent), int(session))
