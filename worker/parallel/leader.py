"""The leader's model: tells the followers, then computes its own part of the same.

Runs in shard 0. What fails in a step, in any shard, fails in all of them: the group is given up,
formed again, and the step's error handed to the engine, which knows what to do about it.
"""

import logging
from typing import Any

import torch

from common.messages import Logits, MakeCache, Measure
from worker.ahead.runner import Others
from worker.errors import GroupLostError
from worker.inputs import StepInputs
from worker.interfaces import AdapterPlans, Configuration, Model
from worker.parallel.group import Group
from worker.parallel.orders import Ahead
from worker.parallel.rendezvous import Crew
from worker.parallel.steps import assembled, message_of
from worker.sharding import Sharding

_log = logging.getLogger(__name__)


class Leader:
    """As ``Team``."""

    def __init__(self, crew: Crew, group: Group) -> None:
        """Returns when the group has been formed."""
        self._crew = crew
        self._group = group
        crew.assemble()
        self.form()

    @property
    def sharding(self) -> Sharding:
        """As ``Team.sharding``."""
        return self._group.sharding

    @property
    def followers(self) -> list[int]:
        """As ``Team.followers``."""
        return self._crew.pids

    def least(self, budget_bytes: int, activation_bytes: int) -> int:
        """As ``Team.least``."""
        self._crew.send(Measure(activation_bytes))
        with self._crew.collective():
            return self._group.least(budget_bytes)

    def make_cache(self, blocks: int) -> None:
        """As ``Team.make_cache``."""
        self._crew.send(MakeCache(blocks))

    def lead(self, model: Any) -> Model:
        """As ``Team.lead``."""
        return LeadingModel(model, self._crew, self)

    def go_ahead(self) -> Others:
        """As ``Team.go_ahead``."""
        return Ahead(self._crew, self._group)

    def close(self) -> None:
        """As ``Team.close``."""
        self._crew.dismiss()
        self._group.give_up()

    def form(self) -> None:
        """A new group of the same shards. Raises GroupLostError if one of them has ended."""
        store = self._crew.new_store()
        try:
            with self._crew.collective():
                self._group.form(str(store))
        finally:
            store.unlink(missing_ok=True)

    def form_again(self, error: Exception) -> None:
        """After a step that has failed. Raises GroupLostError if that is impossible.

        If a follower has died, this process ends in here, before anybody takes that for an error
        of the step.
        """
        if not self._group.can_form_again:
            raise GroupLostError(f"a step failed in one of the shards: {error}") from error
        self._group.give_up()
        self.form()


class LeadingModel:
    """As ``worker.interfaces.Model``, over all shards."""

    def __init__(self, model: Model, crew: Crew, leader: Leader) -> None:
        self._model = model
        self._crew = crew
        self._leader = leader
        self._hidden = torch.empty(0)

    @property
    def configuration(self) -> Configuration:
        """Of the whole model."""
        return self._model.configuration

    @property
    def shares_prefixes(self) -> bool:
        """As ``Model.shares_prefixes``."""
        return self._model.shares_prefixes

    @property
    def adapters(self) -> AdapterPlans | None:
        """As ``Model.adapters``."""
        return self._model.adapters

    def release(self, sequence: int) -> None:
        """As ``Model.release``: what can be cut keeps nothing of sequences."""

    def forward(self, inputs: StepInputs, cache: Any) -> torch.Tensor:
        """As ``Model.forward``."""
        self._crew.send(message_of(assembled(inputs)))
        try:
            self._hidden = self._model.forward(inputs, cache)
        except Exception as error:
            self._leader.form_again(error)
            raise
        return self._hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """As ``Model.logits``, of rows that are a part of the last forward's."""
        first = (hidden.data_ptr() - self._hidden.data_ptr()) // self._hidden.stride(0)
        first //= hidden.element_size()
        if not 0 <= first <= first + len(hidden) <= len(self._hidden):
            raise ValueError("these are no rows of the last forward pass")
        self._crew.send(Logits(first, len(hidden)))
        try:
            return self._model.logits(hidden)
        except Exception as error:
            self._leader.form_again(error)
            raise
