"""The runtime directory: made private, kept from being shared by two servers, and removed.

Holds the sockets of the processes, ``settings.json`` (with the hashes of API keys) and, if a
process cannot start, ``failure`` with its sentence. A lock tells a directory in use from one left
behind.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from common.errors import StartupError
from common.failure import FAILURE_FILE
from common.pulse import PULSE_FILE

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SETTINGS = "settings.json"
READY_FILE = "ready"
"""Is there once the server has been ready."""
LEFT_BEHIND_AFTER_S = 60
"""Younger directories are never taken for left behind."""
_LOCK = "lock"
_PREFIX = "millrace-"
SUPERVISOR_SOCKET = "supervisor.sock"
_SOCKETS = (SUPERVISOR_SOCKET, "requests", "dispatch", "traces")
_PATTERNS = ("tokens-*", "shards-*", "rendezvous-*")
_OURS = (FAILURE_FILE, READY_FILE, PULSE_FILE, SETTINGS, _LOCK, "supervisord.pid", *_SOCKETS)


class RuntimeDirectory:
    """A locked runtime directory. The lock survives ``exec`` and ends with the process."""

    def __init__(self, path: Path, lock: int, *, temporary: bool) -> None:
        self.path = path
        self.lock = lock
        self.temporary = temporary

    def remove(self) -> None:
        """Take away what the server put there; all of it, if the directory was made for it."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        found = [path for pattern in _PATTERNS for path in self.path.glob(pattern)]
        for path in [*(self.path / name for name in _OURS), *found]:
            with contextlib.suppress(OSError):
                path.unlink()


def open_runtime_directory(given: str | None) -> RuntimeDirectory:
    """The directory of ``--runtime-dir``, or a new one. Raises StartupError."""
    from common.sockets import check_runtime_dir  # supervisord needs no sockets of ours

    made: Path | None = None
    try:
        if given is None:
            sweep()
            path = made = Path(tempfile.mkdtemp(prefix=_PREFIX))
        else:
            path = Path(given).expanduser().absolute()
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_runtime_dir(str(path))
        lock = _lock(path)
    except (OSError, ValueError) as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise StartupError(
            f"the runtime directory cannot be used: {error}; choose another with --runtime-dir"
        ) from None
    if lock is None:
        raise StartupError(f"{path} is in use by another server: give each its own --runtime-dir")
    for name in (FAILURE_FILE, READY_FILE, SETTINGS):
        (path / name).unlink(missing_ok=True)
    return RuntimeDirectory(path, lock, temporary=made is not None)


def write_private(path: Path, content: bytes) -> None:
    """A file that only this user can read, from its first moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def running_servers() -> list[Path]:
    """The directories of this user's servers that were given none and are running."""
    from common.sockets import check_runtime_dir

    found = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError, ValueError):
            check_runtime_dir(str(path))
            lock = _lock(path)
            if lock is None:
                found.append(path)
            else:
                os.close(lock)
    return found


def sweep() -> None:
    """Remove directories of servers that were killed: they hold settings."""
    from common.sockets import check_runtime_dir

    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            check_runtime_dir(str(path))
            # RACE: a server that starts just now has its lock file before it holds the lock.
            if time.time() - (path / _LOCK).stat().st_mtime < LEFT_BEHIND_AFTER_S:
                continue
            lock = _lock(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _lock(path: Path) -> int | None:
    """An inheritable descriptor that holds the directory's lock; None if somebody else does."""
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    os.set_inheritable(lock, True)
    return lock
