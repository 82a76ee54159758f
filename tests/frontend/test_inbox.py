"""Messages reach the waiting greenlet, also when a send has taken libzmq's one signal."""

import gevent
import pytest
import zmq

from frontend.inbox import Inbox


@pytest.fixture
def pair():
    context = zmq.Context()
    near, far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    near.bind("inproc://inbox")
    far.connect("inproc://inbox")
    yield near, far
    near.close(linger=0)
    far.close(linger=0)
    context.term()


def test_waits_and_receives_in_order(pair) -> None:
    near, far = pair
    inbox = Inbox(near)
    waiting = gevent.spawn(lambda: [inbox.receive() for _ in range(3)])
    gevent.sleep(0)
    assert not waiting.ready()
    for number in range(3):
        far.send_multipart([b"%d" % number, b"x"])
    assert waiting.get(timeout=5) == [[b"0", b"x"], [b"1", b"x"], [b"2", b"x"]]


def test_a_look_finds_what_a_send_hid(pair) -> None:
    near, far = pair
    inbox = Inbox(near)
    waiting = gevent.spawn(inbox.receive)
    gevent.sleep(0)
    for number in range(200):
        far.send(b"%d" % number)
        # Whatever this send does to the signal, the look afterwards must make up for it.
        near.send(b"mine", zmq.NOBLOCK)
        inbox.look()
        assert waiting.get(timeout=5) == [b"%d" % number]
        waiting = gevent.spawn(inbox.receive)
        gevent.sleep(0)
    waiting.kill()
    far.send(b"last")
    assert inbox.receive() == [b"last"]


def test_a_descriptor_that_nobody_looks_at_does_not_keep_the_loop_busy(pair) -> None:
    near, far = pair
    inbox = Inbox(near)
    waiting = gevent.spawn(inbox.receive)
    gevent.sleep(0)
    waiting.kill()
    far.send(b"2")
    for _ in range(1000):
        gevent.sleep(0.001)
        if not inbox._watcher.active:
            break
    assert not inbox._watcher.active
    again = gevent.spawn(lambda: [inbox.receive() for _ in range(2)])
    gevent.sleep(0)
    far.send(b"3")
    assert again.get(timeout=5) == [[b"2"], [b"3"]]
    inbox.close()
