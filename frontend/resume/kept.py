"""What is known of a stream that its client may take up again. Runs in front ends; only data."""

from dataclasses import dataclass

import msgspec

from common.messages import KeptRun
from frontend.resume.event_ids import Position


class Memo(msgspec.Struct, frozen=True, array_like=True):
    """What the scheduler keeps for us."""

    body: bytes
    born: float
    """Of the answer's identity."""


@dataclass(frozen=True)
class Keeping:
    """How a stream is kept, and what is known of one that is taken up."""

    ticket: str
    owner: str
    memo: bytes
    seen: Position
    """What the client has read; of a new stream, nothing."""
    past: list[KeptRun]
    """Of a new stream, none."""
