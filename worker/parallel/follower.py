"""A follower's whole life: do what the leader says, with its own part of the model.

Runs in shards 1 and up. No engine, no sampler, no scheduler: messages in, collectives out.
"""

import gc
import logging
from collections.abc import Callable

import torch

from common.messages import Form, Forward, Leave, Logits, MakeCache, Measure, Record, Step
from worker.ahead.steps import Steps
from worker.cache import CacheShape, KVCache, part_of
from worker.errors import GroupLostError
from worker.memory import no_room
from worker.models.model import Model
from worker.parallel.group import Group
from worker.parallel.orders import changes_of, order_of
from worker.parallel.rendezvous import Berth
from worker.parallel.steps import inputs_of
from worker.parcel import Parcel
from worker.shortage import is_shortage
from worker.transfers import Transfers, transfers_of

_log = logging.getLogger(__name__)

MakeSteps = Callable[[Model, KVCache, Transfers], Steps]


class Follower:
    """One shard of a model."""

    def __init__(
        self,
        model: Model,
        group: Group,
        device: torch.device,
        measure: Callable[[int], int],
        make_steps: MakeSteps | None = None,
    ) -> None:
        """``measure``: bytes left for keys and values beside a step that needs so many.

        ``make_steps``: where the devices are ahead of the leader's host, which has decided alike.
        """
        self._model = model
        self._group = group
        self._device = device
        self._measure = measure
        self._shape: CacheShape = part_of(model.configuration, group.sharding)
        self._cache: KVCache
        self._hidden = torch.empty(0)
        self._transfers = transfers_of(device)
        self._make_steps = make_steps
        self._steps: Steps | None = None

    def follow(self, berth: Berth) -> None:
        """Until the leader says Leave; the group is given up then.

        Raises GroupLostError and StartupError.
        """
        with torch.inference_mode():
            while True:
                message = berth.receive()
                if isinstance(message, Leave):
                    self._group.give_up()
                    return
                if isinstance(message, Form):
                    with berth.collective():
                        self._group.form(message.store)
                elif isinstance(message, MakeCache):
                    self._make_cache(message.blocks)
                elif isinstance(message, Record | Step):
                    self._go_ahead(message)
                elif self._group.formed:
                    self._take_part(message)

    def _make_cache(self, blocks: int) -> None:
        self._clear()  # before there is another
        try:
            self._cache = self._model.make_cache(self._shape, blocks, self._device)
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            raise no_room(blocks) from None
        if self._make_steps is not None:
            self._steps = self._make_steps(self._model, self._cache, self._transfers)

    def _clear(self) -> None:
        """Without a cache, and what has been recorded over it: as the leader is when it asks."""
        vars(self).pop("_cache", None)
        self._steps = None
        self._hidden = torch.empty(0)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _go_ahead(self, message: Record | Step) -> None:
        """Nothing here waits for the device, but the host may for room in its queue."""
        steps = self._steps
        if steps is None:
            raise GroupLostError("the leader is ahead of its host, this shard is not")
        try:
            if isinstance(message, Record):
                steps.record(changes_of(message))
                return
            order = order_of(message)
            hidden, slots = steps.run(order, Parcel())
            for _ in steps.scored_logits(hidden, order):
                pass  # the leader alone looks at them
            if order.chosen:
                steps.chosen_logits(hidden, order)
            if order.chosen and not order.drafts:
                ids = torch.empty(order.chosen, dtype=torch.int64, device=self._device)
                steps.state.advance(slots, self._group.tell(ids))
        except Exception as error:
            raise GroupLostError(f"a step failed: {error}") from error

    def _take_part(self, message: Forward | Logits | Measure) -> None:
        """What fails here must fail in the leader, too: it alone knows what to do."""
        try:
            if isinstance(message, Forward):
                inputs = inputs_of(message, self._transfers)
                self._hidden = self._model.forward(inputs, self._cache)
            elif isinstance(message, Logits):
                self._model.logits(self._hidden[message.first : message.first + message.count])
            else:
                self._clear()
                self._group.least(self._measure(message.activation_bytes))
        except Exception as error:
            if not self._group.can_form_again:
                raise GroupLostError(f"a step failed: {error}") from error
            _log.exception("a step failed in this shard or in another")
            self._group.give_up()
            self._hidden = torch.empty(0)
            gc.collect()
