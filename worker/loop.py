"""The worker's life: receive, apply, step, publish. Nothing else.

Runs in the worker, in its main thread. While sequences can advance, it takes what has arrived and
steps on; when none can, it waits in the sockets until something comes or a heartbeat is due.

Epochs. A worker starts in epoch 0, of no scheduler. It enters an epoch by Reset, which drops
everything and is answered with Ready(epoch); from epoch 0, where nothing runs, also by the first
Dispatch. Any other Dispatch whose epoch is not the current one is dropped and counted. So a
scheduler that meets a worker it does not know (by the epoch of any of its messages) says Reset.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from common.messages import (
    PROTOCOL_VERSION,
    Dispatch,
    FromWorker,
    Heartbeat,
    Progress,
    Ready,
    Reset,
    SequenceTokens,
    StepReport,
    StepTiming,
    Tokens,
    ToWorker,
    frontend_of,
)
from common.sockets import HEARTBEAT_S
from worker.engine import Engine
from worker.flight import StepResult
from worker.reports import LONGEST_S, Held, as_one, following, in_columns

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is."""

    replica: int
    incarnation: int
    pid: int
    dtype: str = ""
    device: str = ""
    followers: tuple[int, ...] = ()
    """Process ids of the other shards."""


class Link(Protocol):
    """What the loop asks of the sockets."""

    def receive(self, timeout_s: float) -> list[ToWorker]:
        """Messages that have arrived, in order; waits so long for the first."""

    def subscribed(self, frontend: int) -> bool:
        """Whether this front end gets what is published to it."""

    def publish(self, frontend: int, tokens: Tokens) -> None:
        """To a front end."""

    def report(self, message: FromWorker) -> None:
        """To the scheduler."""


class Loop:
    """Runs an engine for whoever is at the other end of the link."""

    def __init__(
        self,
        engine: Engine,
        link: Link,
        identity: Identity,
        clock: Callable[[], float],
        hold_s: float = LONGEST_S,
    ) -> None:
        """``hold_s``: so long may reports wait that say nothing but that all goes on."""
        self._engine = engine
        self._link = link
        self._identity = identity
        self._clock = clock
        self._epoch = 0
        self._dispatch = 0
        self._advanced = False
        self._published_s: float | None = None
        """When the last step was published; None while there is nothing to do."""
        self._heartbeat_due = 0.0
        self._held = Held(clock, hold_s)
        self._undelivered: list[int] = []
        """Front ends that did not get last tokens whose Progress is in a later report."""
        self.stale_dispatches = 0

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until ``stopping()``, which is asked between steps."""
        self._say_ready()
        while not stopping():
            self.turn()

    def turn(self) -> None:
        """Receive, apply, step, publish: once."""
        patience = 0.0 if self._advanced else max(0.0, self._heartbeat_due - self._clock())
        for message in self._link.receive(patience):
            self._apply(message)
        began = self._clock()
        result = self._engine.step()
        self._advanced = result is not None
        self._publish(result, began)

    def _apply(self, message: ToWorker) -> None:
        if isinstance(message, Reset):
            self._engine.reset()
            self._held.take()
            self._undelivered.clear()
            self._epoch, self._dispatch = message.epoch, 0
            self._say_ready()
        elif message.epoch == self._epoch or self._epoch == 0:
            self._enter(message)
        else:
            self.stale_dispatches += 1
            _log.warning("dropped a dispatch of epoch %d, not ours", message.epoch)

    def _enter(self, dispatch: Dispatch) -> None:
        if self._dispatch and dispatch.number != self._dispatch + 1:
            _log.warning("dispatch %d came after %d", dispatch.number, self._dispatch)
        self._epoch, self._dispatch = dispatch.epoch, dispatch.number
        self._engine.apply(dispatch)

    def _publish(self, result: StepResult | None, began: float) -> None:
        """Tokens to the front ends, then the report to the scheduler; or a sign of life."""
        items, released = self._engine.take_news()
        ahead: list[SequenceTokens] = []
        behind: list[Progress] = []
        if result is not None:
            items += result.items
            ahead, behind = result.ahead, result.behind
        else:
            self._published_s = None
            if not items and not released:
                self._give_a_sign()
                return
        computed = self._clock()
        undelivered = self._publish_tokens([item.tokens for item in items if not item.error])
        undelivered += self._undelivered
        self._undelivered = self._publish_tokens(ahead)
        steady = None
        if not undelivered:
            items, steady = in_columns(items)
        timing = None if result is None else self._timing(result, began, computed)
        report = StepReport(
            epoch=self._epoch,
            incarnation=self._identity.incarnation,
            dispatch=self._dispatch,
            step=self._engine.steps,
            items=items + behind,
            released=released,
            undelivered=undelivered,
            timing=timing,
            steady=steady,
        )
        if not self._held.keeps(report):
            self._report(report)

    def _give_a_sign(self) -> None:
        """There is nothing to do: nobody is disturbed by what was held."""
        self._let_go()
        if self._clock() >= self._heartbeat_due:
            self._report(Heartbeat(self._epoch, self._identity.incarnation, self._engine.steps))

    def _timing(self, result: StepResult, began: float, computed: float) -> StepTiming:
        published = self._clock()
        before, self._published_s = self._published_s, published
        return StepTiming(
            prefill_tokens=result.prefill_tokens,
            decode_tokens=result.decode_tokens,
            forward_s=result.forward_s,
            sample_s=result.sample_s,
            publish_s=published - computed,
            total_s=published - began,
            gap_s=0.0 if before is None else published - before,
            piece_tokens=result.piece_tokens,
            drafted_tokens=result.drafted_tokens,
            accepted_tokens=result.accepted_tokens,
        )

    def _publish_tokens(self, items: list[SequenceTokens]) -> list[int]:
        """One message per front end; returns those that would not get theirs."""
        groups: dict[int, list[SequenceTokens]] = {}
        for tokens in items:
            if tokens.ids or tokens.finish:
                groups.setdefault(frontend_of(tokens.id), []).append(tokens)
        undelivered = []
        for frontend, group in groups.items():
            if self._link.subscribed(frontend):
                message = Tokens(self._identity.incarnation, self._engine.steps, *following(group))
                self._link.publish(frontend, message)
            else:
                undelivered.append(frontend)
        return undelivered

    def _say_ready(self) -> None:
        identity = self._identity
        self._report(
            Ready(
                version=PROTOCOL_VERSION,
                replica=identity.replica,
                incarnation=identity.incarnation,
                pid=identity.pid,
                blocks=self._engine.blocks,
                epoch=self._epoch,
                dtype=identity.dtype,
                device=identity.device,
                longest_step_s=self._engine.longest_step_s,
                prefix_caching=self._engine.prefix_caching,
                followers=list(identity.followers),
            )
        )

    def _report(self, message: FromWorker) -> None:
        if isinstance(message, StepReport):
            message = as_one([*self._held.take(), message])
        self._link.report(message)
        self._heartbeat_due = self._clock() + HEARTBEAT_S

    def _let_go(self) -> None:
        held = self._held.take()
        if held:
            self._link.report(as_one(held))
