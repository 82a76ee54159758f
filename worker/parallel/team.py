"""What the start of a worker asks of the group that it leads, which may be itself alone."""

from typing import Any, Protocol

from worker.ahead.runner import NOBODY, Others
from worker.interfaces import Model
from worker.sharding import WHOLE, Sharding


class Team(Protocol):
    """The shards of a replica, as their leader sees them."""

    @property
    def sharding(self) -> Sharding:
        """The leader's own part."""

    @property
    def followers(self) -> list[int]:
        """Process ids."""

    def least(self, budget_bytes: int, activation_bytes: int) -> int:
        """The least of what any shard has left for keys and values beside its largest step.

        Takes the leader's own, and what that step needs. Returns when all have loaded.
        """

    def make_cache(self, blocks: int) -> None:
        """Have the others make theirs."""

    def lead(self, model: Any) -> Model:
        """A model that computes with the others, from this shard's part of it."""

    def go_ahead(self) -> Others:
        """Those that compute what an ``AheadRunner`` does, over this shard's part of the model."""

    def close(self) -> None:
        """Let the others end."""


class Alone:
    """A model in one process."""

    sharding = WHOLE
    followers: list[int] = []

    def least(self, budget_bytes: int, activation_bytes: int) -> int:
        """As ``Team.least``."""
        return budget_bytes

    def make_cache(self, blocks: int) -> None:
        """As ``Team.make_cache``."""

    def lead(self, model: Any) -> Model:
        """As ``Team.lead``."""
        led: Model = model
        return led

    def go_ahead(self) -> Others:
        """As ``Team.go_ahead``."""
        return NOBODY

    def close(self) -> None:
        """As ``Team.close``."""
