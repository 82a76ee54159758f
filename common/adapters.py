"""LoRA adapters as all processes know them: by name, and by what their files hold.

A name may stand for other weights tomorrow, and keys and values that were computed with an adapter
belong to its weights. So requests say names, and everything behind the front ends says digests.
Knows neither tensors nor networks.
"""

from hashlib import blake2b
from pathlib import Path

import msgspec

from common.errors import StartupError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
DIGEST_CHARACTERS = 64
"""A longer one is none."""
_CHUNK_BYTES = 1 << 20


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """One that the server was started with: its files are there and look right."""

    name: str
    """What requests call it."""
    digest: str
    """Of its files: the same weights have the same one, whatever they are called."""
    directory: str
    source: str
    """As the user named it: a repository or a directory, with its revision if it has one."""


def digest_of(directory: Path) -> str:
    """Of an adapter's configuration and weights: 64 hexadecimal digits. Raises StartupError."""
    found = blake2b(digest_size=DIGEST_CHARACTERS // 2, person=b"adapter")
    for name in (CONFIG, WEIGHTS):
        path = directory / name
        try:
            found.update(path.stat().st_size.to_bytes(8, "big"))
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    found.update(chunk)
        except OSError as error:
            raise StartupError(f"cannot read {path}: {error.strerror}") from None
    return found.hexdigest()
