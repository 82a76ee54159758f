"""The front ends that the scheduler knows, and when each was last heard.

Owns who has said Hello. What becomes of a dead one's sequences is decided in ``intake.py``.
"""

from dataclasses import dataclass

from common.messages import Hello

LAPSE_S = 10.0
"""A front end says Alive once a second; after so much silence it counts as dead."""


@dataclass(slots=True)
class Frontend:
    """One front-end process."""

    number: int
    pid: int
    heard_s: float


class Frontends:
    """Known front ends by number."""

    def __init__(self) -> None:
        self._known: dict[int, Frontend] = {}

    def __len__(self) -> int:
        return len(self._known)

    def numbers(self) -> list[int]:
        """All known front ends."""
        return list(self._known)

    def greet(self, hello: Hello, now: float) -> None:
        """A front end has said Hello, for the first time or again."""
        self._known[hello.frontend] = Frontend(hello.frontend, hello.pid, now)

    def heard(self, number: int, now: float) -> bool:
        """Note a sign of life; False if this front end has not said Hello."""
        frontend = self._known.get(number)
        if frontend is None:
            return False
        frontend.heard_s = now
        return True

    def excuse(self, now: float) -> None:
        """Count the silence of all of them from now on."""
        for frontend in self._known.values():
            frontend.heard_s = now

    def drop(self, number: int) -> None:
        """Forget a front end."""
        self._known.pop(number, None)

    def with_pid(self, pid: int) -> list[int]:
        """The front ends of an operating-system process."""
        return [f.number for f in self._known.values() if f.pid == pid]

    def lapsed(self, now: float) -> list[int]:
        """The front ends that have been silent for too long."""
        return [f.number for f in self._known.values() if now - f.heard_s > LAPSE_S]
