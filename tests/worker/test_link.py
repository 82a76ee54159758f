"""The worker's sockets, real ones: subscriptions, bad frames, and one whole conversation."""

import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq

from common.messages import (
    Dispatch,
    Hello,
    NewSequence,
    Ready,
    Reset,
    SequenceSpec,
    SequenceTokens,
    Tokens,
    topic_of,
)
from common.sampling import SamplingParameters
from common.sockets import (
    FROM_WORKER,
    TOKENS,
    dispatch_endpoint,
    encode,
    open_socket,
    tokens_endpoint,
    worker_identity,
)
from tests.worker.driver import CPU, HistoryModel
from tests.worker.grammars import byte_guidance, regex
from tests.worker.reported import items_of, progress_of, reports_of
from worker.engine import Engine
from worker.link import SocketLink
from worker.loop import Identity, Loop

WAIT_S = 5.0


class Peers:
    """The scheduler's and a front end's side."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = self.directory.name
        self.context = zmq.Context()
        self.scheduler = open_socket(self.context, zmq.ROUTER)
        self.scheduler.bind(dispatch_endpoint(self.path))
        self.identity = worker_identity(1, 42)
        self.links: list[SocketLink] = []

    def link(self, **options) -> SocketLink:
        link = SocketLink(self.context, self.path, replica=1, incarnation=42, **options)
        self.links.append(link)
        return link

    def subscriber(self, *topics: bytes):
        socket = open_socket(self.context, zmq.SUB)
        socket.connect(tokens_endpoint(self.path, 1))
        for topic in topics:
            socket.subscribe(topic)
        return socket

    def read(self):
        """The next message of the worker."""
        assert self.scheduler.poll(WAIT_S * 1000)
        identity, frame = self.scheduler.recv_multipart()
        assert identity == self.identity
        return FROM_WORKER.decode(frame)

    def say(self, *frames: bytes) -> None:
        self.scheduler.send_multipart([self.identity, *frames])

    def close(self) -> None:
        for link in self.links:
            link.close()
        self.context.destroy(linger=0)
        self.directory.cleanup()


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.close()


def until(condition, link: SocketLink):
    """What the link receives until the condition holds."""
    deadline = time.monotonic() + WAIT_S
    received = []
    while not condition(received):
        assert time.monotonic() < deadline
        received += link.receive(0.2)
    return received


READY = Ready(1, 1, 42, 0, 8)


def test_bad_frames_are_counted_and_their_sender_lives_on(peers):
    link = peers.link()
    link.report(READY)
    assert peers.read() == READY
    good = Reset(3)
    bad = [
        [b""],
        [b"\xc1"],
        [b"\x91" * 5000],
        [encode(good), encode(good)],
        [encode(READY)],
        [encode(Hello(1, 2, 3))],
        [encode(good) + b"more"],
        [b"\x92\xa5Reset\xa1x"],
    ]
    for frames in bad:
        peers.say(*frames)
    peers.say(encode(good))
    assert until(len, link) == [good]
    assert link.bad_frames == len(bad)


def test_messages_arrive_in_order(peers):
    link = peers.link()
    link.report(READY)
    peers.read()
    sent = [Dispatch(1, number, 64) for number in range(200)]
    for message in sent:
        peers.say(encode(message))
    assert until(lambda received: len(received) == 200, link) == sent


def test_only_seen_subscriptions_count(peers):
    link = peers.link()
    assert not link.subscribed(7)
    first = peers.subscriber(topic_of(7))
    until(lambda _: link.subscribed(7), link)
    second = peers.subscriber(topic_of(7), b"", b"odd")
    until(lambda _: link.bad_frames == 2, link)
    tokens = Tokens(42, 1, [SequenceTokens(7 << 32, 0, 0, [5])])
    link.publish(7, tokens)
    topic, frame = first.recv_multipart()
    assert topic == topic_of(7)
    assert TOKENS.decode(frame) == tokens
    first.close()
    second.unsubscribe(topic_of(7))
    until(lambda _: not link.subscribed(7), link)


def test_without_a_scheduler_nothing_blocks(peers):
    peers.scheduler.close()
    link = peers.link()
    for _ in range(1000):
        link.report(READY)
    assert link.receive(0.0) == []


def test_a_signal_ends_a_wait(peers):
    reading, writing = os.pipe()
    link = peers.link(wakeup_fds=[reading])
    os.write(writing, b"x")
    began = time.monotonic()
    assert link.receive(60.0) == []
    assert time.monotonic() - began < WAIT_S
    os.close(reading)
    os.close(writing)


def test_a_compiled_grammar_ends_a_wait(peers, tmp_path):
    guidance = byte_guidance(tmp_path, ThreadPoolExecutor(1))
    link = peers.link(wakeup_fds=[guidance.wakeup_fd])
    guide = guidance.admit(1, regex("a"), [0], [])
    began = time.monotonic()
    assert link.receive(60.0) == []
    assert time.monotonic() - began < WAIT_S
    assert guidance.arrived() == [guide]
    guidance.close()


def test_a_whole_conversation(peers):
    """Ready, Reset, Ready, Dispatch, tokens to the front end and reports to the scheduler."""
    link, model = peers.link(), HistoryModel()
    engine = Engine(model, HistoryModel.cache(8), blocks=8, device=CPU, clock=time.monotonic)
    loop = Loop(engine, link, Identity(1, 42, 0), time.monotonic)
    stop = threading.Event()
    thread = threading.Thread(target=loop.run, args=(stop.is_set,))
    thread.start()
    try:
        assert peers.read().epoch == 0
        frontend = peers.subscriber(topic_of(9))
        peers.say(encode(Reset(5)))
        ready = peers.read()
        assert (ready.epoch, ready.blocks) == (5, 8)
        unseen = NewSequence(SequenceSpec(8 << 32, [4], 3, SamplingParameters()), 0, [], [1])
        seen = NewSequence(SequenceSpec(9 << 32, [1, 2], 6, SamplingParameters()), 0, [], [2])
        peers.say(encode(Dispatch(5, 1, 16, add=[unseen, seen])))
        got: dict[int, list[int]] = {}
        while not all(len(ids) == n for ids, n in ((got.get(8, []), 3), (got.get(9, []), 6))):
            for report in reports_of(peers.read()):
                for item in progress_of(report):
                    got.setdefault(item.tokens.id >> 32, []).extend(item.tokens.ids)
                assert 9 not in report.undelivered
                running = {item.tokens.id >> 32 for item in progress_of(report)}
                assert (8 in report.undelivered) == (8 in running)
        assert got == {8: model.continuation([4], 3), 9: model.continuation([1, 2], 6)}
        delivered: list[int] = []
        while len(delivered) < 6:
            assert frontend.poll(WAIT_S * 1000)
            _, frame = frontend.recv_multipart()
            for tokens in items_of(TOKENS.decode(frame)):
                assert tokens.index == len(delivered)
                delivered += tokens.ids
        assert delivered == got[9]
        assert tokens.finish == "length"
    finally:
        stop.set()
        peers.say(encode(Reset(6)))
        thread.join(WAIT_S)
    assert not thread.is_alive()
