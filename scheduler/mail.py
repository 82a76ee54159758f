"""What is to be said to front ends, or to workers, collected while a turn of the loop decides.

Owns the order of messages to each of them. Knows no sockets: the loop takes the collected messages
and sends them.
"""

import msgspec

from common.sockets import frontend_identity


class Mail:
    """Messages by routing id, in the order in which they were written."""

    def __init__(self) -> None:
        self._messages: list[tuple[bytes, msgspec.Struct]] = []

    def to_frontend(self, frontend: int, message: msgspec.Struct) -> None:
        """Write to a front end by its number."""
        self._messages.append((frontend_identity(frontend), message))

    def to_identity(self, identity: bytes, message: msgspec.Struct) -> None:
        """Write to whoever has this routing id."""
        self._messages.append((identity, message))

    def take(self) -> list[tuple[bytes, msgspec.Struct]]:
        """What was written since the last call."""
        messages, self._messages = self._messages, []
        return messages
