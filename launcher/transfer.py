"""Brings one file of a hub repository into the hub client's cache, and can be interrupted.

The hub client throws a half-finished file away; files of weights are large, so this keeps what has
arrived and asks only for the rest (HTTP Range). What lies in the cache afterwards is what the hub
client would have put there. Knows nothing of which files are wanted.
"""

import fcntl
import hashlib
import io
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import StartupError
from launcher.progress import Progress

_READ_LIMIT_S = 30.0
_TRIES = 5
"""Failures in a row, without a byte in between, before giving up."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CutOffError(Exception):
    """The connection ended before the file did."""


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch."""

    name: str
    url: str
    etag: str
    """Name of the blob; for large files the SHA-256 of the content."""
    size: int | None


class Transfer:
    """Fetches files into ``<repository's cache>/blobs``."""

    def __init__(
        self, blobs: Path, headers: dict[str, str], progress: Progress, *, pause_s: float = 1.0
    ) -> None:
        self._blobs = blobs
        self._headers = {**headers, "Accept-Encoding": "identity"}
        self._progress = progress
        self._pause_s = pause_s
        self._stop = threading.Event()

    def stop(self) -> None:
        """Make all threads stop soon; what has arrived stays."""
        self._stop.set()

    def fetch(self, file: RemoteFile) -> None:
        """Complete the blob of ``file``; returns at once if it is there.

        Raises StartupError if the content is wrong twice, and whatever the HTTP client raises.
        """
        blob = self._blobs / file.etag
        partial = partial_path(self._blobs, file.etag)
        with partial.open("ab", buffering=0) as target:
            # Another launcher may fetch the same file: the second one waits, then finds the blob.
            fcntl.flock(target, fcntl.LOCK_EX)
            if blob.exists():
                partial.unlink(missing_ok=True)
                return
            self._fill(file, target)
            if not _is_whole(file, partial):
                self._empty(target)
                self._fill(file, target)
                if not _is_whole(file, partial):
                    self._empty(target)
                    raise StartupError(
                        f"what was received of {file.name} is not what the hub names (SHA-256): "
                        "try again later, or look at what stands between"
                    )
            os.replace(partial, blob)

    def _fill(self, file: RemoteFile, target: io.FileIO) -> None:
        if file.size is None or size_of(target) > file.size:
            self._empty(target)
        failures = 0
        while file.size is None or size_of(target) < file.size:
            before = size_of(target)
            try:
                self._read(file, target)
                if file.size is None:
                    return
                if size_of(target) < file.size:
                    raise CutOffError(f"{file.name} ended after {size_of(target)} bytes")
            except Exception as error:
                if not _passing(error):
                    raise
                failures = 1 if size_of(target) > before else failures + 1
                if failures > _TRIES or self._stop.wait(self._pause_s):
                    raise
        if size_of(target) != file.size:
            self._empty(target)
            raise StartupError(f"the hub sent too much for {file.name}: try again later")

    def _empty(self, target: io.FileIO) -> None:
        self._progress.add(-size_of(target))
        target.truncate(0)

    def _read(self, file: RemoteFile, target: io.FileIO) -> None:
        """One connection's worth of bytes, appended to what is there."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

        start = size_of(target)
        headers = {**self._headers, "Range": f"bytes={start}-"} if start else self._headers
        stream: Any = get_session().stream
        with stream(
            "GET", file.url, headers=headers, follow_redirects=True, timeout=_READ_LIMIT_S
        ) as answer:
            hf_raise_for_status(answer)
            if start and answer.status_code != 206:  # the server knows no ranges
                self._empty(target)
            for chunk in answer.iter_bytes():
                target.write(chunk)
                self._progress.add(len(chunk))
                if self._stop.is_set():
                    raise InterruptedError("stopped")


def _passing(error: Exception) -> bool:
    """Whether trying again may help. The HTTP client's package differs between hub versions."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in (408, 429, 500, 502, 503, 504)
    network = type(error).__module__.startswith("http") or isinstance(error, ConnectionError)
    return network or isinstance(error, CutOffError)


def _is_whole(file: RemoteFile, partial: Path) -> bool:
    """Whether the content is the one that the etag names, where it names one."""
    return not _SHA256.fullmatch(file.etag) or digest_of(partial) == file.etag


def partial_path(blobs: Path, etag: str) -> Path:
    """Where the part of a file that has arrived is kept."""
    return blobs / f"{etag}.millrace-incomplete"


def size_of(file: io.FileIO) -> int:
    """Bytes in an open file. Its position says nothing: writes go to the end."""
    return os.fstat(file.fileno()).st_size


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
