"""A scheduler and a worker behind real sockets, in a thread of the test.

Accepts every sequence and gives each running one a token every few milliseconds, ``x`` again and
again, published as a worker does. A seed of ``NEVER`` stays in prefill for ever.
"""

import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from common.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Alive,
    Cancel,
    Delivered,
    FrontendGone,
    Hello,
    Missing,
    Replay,
    ReplicaStatus,
    Scrape,
    Scraped,
    SequenceTokens,
    Started,
    Status,
    Submit,
    Tokens,
    frontend_of,
    topic_of,
)
from common.sockets import (
    FROM_FRONTEND,
    encode,
    frontend_identity,
    open_socket,
    requests_endpoint,
    tokens_endpoint,
)
from worker.reports import following

NEVER = 77
STEP_S = 0.004


class Backend(threading.Thread):
    """Everything that the front ends talk to."""

    def __init__(self, runtime_dir: Path, token: int) -> None:
        super().__init__(daemon=True)
        self.token = token
        self.ready = False
        self.epoch = 1
        self.publish = True
        """Whether published tokens arrive; if not, they are found by Missing."""
        self.received: list[msgspec.Struct] = []
        self.steps = 0
        """A clock that stands still when the machine does."""
        self._running: dict[int, tuple[Submit, int]] = {}
        self._finished: dict[int, tuple[Submit, int]] = {}
        self._known: set[int] = set()
        self._ended = False
        self._context = zmq.Context()
        self._requests = open_socket(self._context, zmq.ROUTER)
        self._requests.bind(requests_endpoint(str(runtime_dir)))
        self._tokens = open_socket(self._context, zmq.XPUB)
        self._tokens.bind(tokens_endpoint(str(runtime_dir), 0))

    def __enter__(self) -> "Backend":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def of(self, kind: type) -> list[Any]:
        return [message for message in list(self.received) if isinstance(message, kind)]

    def live(self) -> int:
        """Sequences that were handed in and neither cancelled nor delivered."""
        submitted = {message.spec.id for message in self.of(Submit)}
        return len(submitted - {message.id for message in self.of(Delivered)})

    def go_on(self) -> None:
        """Wait for some steps."""
        until = self.steps + 20
        while self.steps < until:
            self.join(STEP_S)

    def forget(self) -> None:
        """Be another scheduler, which knows nothing of the first one's sequences."""
        self._running.clear()
        self.epoch += 1

    def stop(self) -> None:
        self._ended = True
        self.join(5)
        self._requests.close(0)
        self._tokens.close(0)
        self._context.term()

    def run(self) -> None:
        step_at = beat_at = time.monotonic()
        while not self._ended:
            now = time.monotonic()
            wait_s = max(min(step_at, beat_at) - now, 0.0)
            if self._requests.poll(wait_s * 1000):
                identity, frame = self._requests.recv_multipart()
                self._handle(identity, FROM_FRONTEND.decode(frame))
            now = time.monotonic()
            if now >= step_at:
                self._step()
                step_at = now + STEP_S
            if now >= beat_at:
                for number in list(self._known):
                    self._say(frontend_identity(number), self._status())
                beat_at = now + 0.2

    def _status(self) -> Status:
        replica = ReplicaStatus(replica=0, ready=self.ready, running=len(self._running))
        return Status(version=PROTOCOL_VERSION, epoch=self.epoch, replicas=[replica])

    def _say(self, identity: bytes, message: msgspec.Struct) -> None:
        try:
            self._requests.send_multipart([identity, encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:
            self._known.discard(int(identity[1:], 16))

    def _handle(self, identity: bytes, message: Any) -> None:
        self.received.append(message)
        if isinstance(message, Hello):
            self._known.add(message.frontend)
            self._say(identity, self._status())
        elif isinstance(message, Alive):
            if message.frontend not in self._known:
                self._say(identity, self._status())
        elif isinstance(message, Submit):
            self._running[message.spec.id] = (message, len(message.generated_ids))
            self._say(identity, Accepted(id=message.spec.id, attempt=message.attempt))
        elif isinstance(message, Cancel | Delivered):
            self._running.pop(message.id, None)
            self._finished.pop(message.id, None)
        elif isinstance(message, Missing):
            known = self._running.get(message.id) or self._finished.get(message.id)
            if known is not None and message.index < known[1]:
                self._say(identity, Replay(items=[self._item(known[0], message.index, known[1])]))
        elif isinstance(message, Scrape):
            self._say(identity, Scraped(tag_id=message.tag_id, text=b"tgi_queue_size 0\n"))
        elif isinstance(message, FrontendGone):
            pass

    def _step(self) -> None:
        self.steps += 1
        steps: dict[int, list[SequenceTokens]] = {}
        for sequence, (submit, made) in list(self._running.items()):
            if submit.spec.sampling.seed == NEVER:
                continue
            self._running[sequence] = (submit, made + 1)
            item = self._item(submit, made, made + 1)
            if item.finish:
                self._finished[sequence] = self._running.pop(sequence)
            steps.setdefault(frontend_of(sequence), []).append(item)
        if not self.publish:
            return
        for number, items in steps.items():
            message = Tokens(1, 1, *following(items))
            self._tokens.send_multipart([topic_of(number), encode(message)], zmq.NOBLOCK)

    def _item(self, submit: Submit, first: int, end: int) -> SequenceTokens:
        return SequenceTokens(
            id=submit.spec.id,
            attempt=submit.attempt,
            index=first,
            ids=[self.token] * (end - first),
            logprobs=[-1.0] * (end - first),
            finish="length" if end == submit.spec.max_new_tokens else "",
            started=Started(queue_s=0.01) if first == 0 else None,
        )
