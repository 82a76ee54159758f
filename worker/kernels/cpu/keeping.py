"""Keeps a compiled library between starts, whole and out of reach of other users.

Runs in the worker. To load a library is to run it: so it is taken only from directories that nobody
but this user and root can write to, and only if all of it is there. A file ends in the SHA-256 of
what stands before it, which loaders of ELF files do not read: a disk that filled up, or a machine
that went down, leaves half a library, and half a one kills the process that maps it.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_DIGEST_BYTES = hashlib.sha256().digest_size
_MODE = 0o755
_SCRATCH = ".building-"
_LEFT_AFTER_S = 600
"""Nobody compiles for so long: who made such a directory was killed meanwhile."""


def own_directory(directory: Path, user: int | None = None) -> Path:
    """The directory without symbolic links, made if it is missing; for the effective user.

    OSError if it cannot be made, PermissionError if others can write to it or to one above it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.resolve(strict=True)
    user = os.geteuid() if user is None else user
    for place in (found, *found.parents):
        status = place.lstat()
        if status.st_uid not in (0, user):
            raise PermissionError(f"{place} belongs to user {status.st_uid}")
        if _others_write(status) and not (status.st_mode & stat.S_ISVTX and place != found):
            raise PermissionError(f"others may write to {place}")
    return found


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """No other process that asks for the same is in here: workers start together, one compiles.

    Where the file system knows no locks, each goes ahead.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A place in a directory to make a library in, gone afterwards, as are those of the killed."""
    directory.mkdir(parents=True, exist_ok=True)
    for place in directory.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(FileNotFoundError):  # RACE: another worker removes it, too
            if time.time() - place.stat().st_mtime > _LEFT_AFTER_S:
                shutil.rmtree(place, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=_SCRATCH) as name:
        yield Path(name)


def is_whole(path: Path) -> bool:
    """Whether a file is there that ``keep`` has kept, unharmed; links are none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False
            content = file.read()
    except OSError:
        return False
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    return hashlib.sha256(body).digest() == digest


def keep(made: Path, path: Path) -> None:
    """Move a new library to its place: whoever looks there sees all of it or nothing new."""
    with made.open("r+b") as file:
        digest = hashlib.sha256(file.read()).digest()
        file.write(digest)
        os.fchmod(file.fileno(), _MODE)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, path)


def _others_write(status: os.stat_result) -> bool:
    """A group of one's own is not others: many systems give each user one, and write to it."""
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
    return bool(by_group or status.st_mode & stat.S_IWOTH)
