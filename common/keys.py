"""API keys as digests, and the file that lists them.

Shared by the launcher, which reads keys and hands on nothing but digests, and by the front ends,
which read the file again when it changes. A plain SHA-256 is enough: keys are long and random, so
nobody can try them all; that is what slow password hashes are for.
"""

import hashlib
import os
import stat
from collections.abc import Iterable

MAX_KEYS = 1000
"""Each request's key is compared with all of them."""
MAX_FILE_BYTES = 1_000_000


class KeyFileError(ValueError):
    """Why a key file cannot be used; the end of a sentence."""


def digest(key: bytes) -> str:
    """What is kept of a key: its SHA-256, in hexadecimal."""
    return hashlib.sha256(key).hexdigest()


def digests(keys: Iterable[str]) -> list[str]:
    """The digests of keys as a user wrote them, in UTF-8."""
    return [digest(key.encode()) for key in keys]


def read_key_file(path: str) -> list[str]:
    """The digests of a file of one key per line; blank lines and ``#`` comments do not count.

    Raises KeyFileError for a file that cannot be read, holds no key, or is too large.
    """
    try:
        # A pipe without a writer would be waited for when it is opened.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise KeyFileError("is not a file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise KeyFileError(f"is larger than {MAX_FILE_BYTES} bytes")
    lines = [line.strip() for line in content.removeprefix(b"\xef\xbb\xbf").splitlines()]
    keys = [line for line in lines if line and not line.startswith(b"#")]
    if not keys:
        raise KeyFileError("holds no key")
    if len(keys) > MAX_KEYS:
        raise KeyFileError(f"holds more than {MAX_KEYS} keys")
    return [digest(key) for key in keys]
