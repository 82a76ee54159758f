"""What names an answer and everything in it: one random number, and the moment of its birth.

All ids are functions of them and of the place that they name, so that the events of a stream can be
written anew by another process.
"""

import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

_ID_BYTES = 16


@dataclass(frozen=True)
class Identity:
    """Of one request's answer."""

    seed: str
    """32 random hexadecimal digits."""
    born: float
    """Seconds since the epoch."""

    def name(self, prefix: str, *place: int, separator: str = "_") -> str:
        """An id that nothing else has, ``prefix`` being the API's for its kind."""
        text = ".".join(map(str, (prefix, *place)))
        digest = blake2b(text.encode(), key=self.seed.encode(), digest_size=_ID_BYTES)
        return f"{prefix}{separator}{digest.hexdigest()}"


def new_identity(now: float) -> Identity:
    """One that nothing else has."""
    return Identity(secrets.token_hex(_ID_BYTES), now)


class Origin(NamedTuple):
    """The request that a sequence belongs to, for logs and traces."""

    request: str = ""
    traceparent: str = ""
