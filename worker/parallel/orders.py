"""Steps of a group whose devices are ahead of the host: as messages, and the leader's way to send
them.

Runs in every shard. What a step needs of the host is in its message; last tokens pass from device
to device (``Group.tell``). A step that fails in one shard leaves states that differ, so the group
does not survive it: supervisord starts it anew, and the scheduler repeats what it computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from common.messages import Record, Step
from worker.ahead.order import Order, StateChanges
from worker.errors import GroupLostError
from worker.parallel.group import Group
from worker.parallel.rendezvous import Crew
from worker.parallel.steps import assembly_of, bytes_of, integers_of, message_of


class Ahead:
    """The followers of such a group, as ``worker.ahead.runner.Others``."""

    def __init__(self, crew: Crew, group: Group) -> None:
        self._crew = crew
        self._group = group

    def record(self, changes: StateChanges) -> None:
        """As ``Others.record``."""
        self._crew.send(Record(changes.slots, changes.width, bytes_of(changes.numbers)))

    @contextmanager
    def follow(self, order: Order) -> Iterator[None]:
        """As ``Others.follow``."""
        self._crew.send(step_of(order))
        try:
            yield
        except torch.AcceleratorError:
            raise  # the process ends by this, too, and says more
        except Exception as error:
            raise GroupLostError(f"a step failed in the leading shard: {error}") from error

    def tell(self, ids: torch.Tensor) -> None:
        """As ``Others.tell``."""
        self._group.tell(ids)


def step_of(order: Order) -> Step:
    """As a message."""
    changes = order.changes
    return Step(
        changes.slots,
        changes.width,
        bytes_of(changes.numbers),
        order.chosen,
        order.scored,
        order.size,
        bytes_of(np.array(order.lengths, dtype=np.int64)),
        order.adapted,
        order.drafts,
        None if order.assembly is None else message_of(order.assembly),
        bytes_of(np.array(order.slots, dtype=np.int64)),
    )


def changes_of(message: Step | Record) -> StateChanges:
    """What a message says of the state."""
    numbers = integers_of(message.changes).reshape(2, -1)
    return StateChanges(message.slots, message.width, numbers)


def order_of(message: Step) -> Order:
    """The same step, in a follower."""
    return Order(
        changes_of(message),
        message.chosen,
        message.scored,
        message.size,
        tuple(integers_of(message.lengths).tolist()),
        message.adapted,
        message.drafts,
        None if message.forward is None else assembly_of(message.forward),
        tuple(integers_of(message.chosen_slots).tolist()),
    )
