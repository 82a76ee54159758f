"""Where drafts come from: the seam.

Runs in the worker. A drafter guesses how one sequence goes on. It may be wrong at no cost but time:
what is chosen never depends on it. Knows nothing of steps, blocks or tensors.
"""

from typing import Protocol


class Drafter(Protocol):
    """Of one sequence."""

    def propose(self, most: int) -> list[int]:
        """What may follow its known ids: at most so many token ids, none if it has no idea."""


class MakeDrafter(Protocol):
    """Makes one for each sequence."""

    def __call__(self, ids: list[int], longest: int) -> Drafter:
        """``ids`` are the known tokens; the list grows with the sequence, up to ``longest``."""
