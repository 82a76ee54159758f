"""Keys become digests; a file of them is read whole or refused with a reason."""

import hashlib
import os
from pathlib import Path

import pytest

from common.keys import MAX_FILE_BYTES, MAX_KEYS, KeyFileError, digest, digests, read_key_file


def test_a_digest_is_a_sha256_of_the_bytes() -> None:
    assert digest(b"k") == hashlib.sha256(b"k").hexdigest()
    assert digests(["k", "ü"]) == [digest(b"k"), digest("ü".encode())]


def test_lines_are_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbf# ours\r\n\n  one \r\ntwo#2\n   # more\nthr ee")
    assert read_key_file(str(path)) == digests(["one", "two#2", "thr ee"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no key"),
        (b"# nothing\n\n", "holds no key"),
        (b"k\n" * (MAX_KEYS + 1), "more than 1000 keys"),
        (b"k" * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=reason):
        read_key_file(str(path))


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_key_file(str(tmp_path / "none"))
    with pytest.raises(KeyFileError, match="directory"):
        read_key_file(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KeyFileError, match="is not a file"):
        read_key_file(str(tmp_path / "pipe"))
