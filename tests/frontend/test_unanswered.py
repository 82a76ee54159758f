"""Who has nothing of an answer yet is failed wherever it waits; who answers is left alone."""

import threading

import gevent
import pytest
from gevent.event import Event
from gevent.threadpool import ThreadPool

from common.errors import ErrorKind, RequestError
from frontend.unanswered import Unanswered

ENDING = RequestError(ErrorKind.UNAVAILABLE, "The server is shutting down")
LIMIT_S = 5


@pytest.fixture
def unanswered() -> Unanswered:
    return Unanswered()


def test_who_waits_is_failed(unanswered: Unanswered) -> None:
    def request() -> None:
        with unanswered:
            Event().wait()

    requests = [gevent.spawn(request) for _ in range(3)]
    gevent.idle()
    unanswered.fail_all(ENDING)
    for made in requests:
        made.join(LIMIT_S)
        assert made.exception is ENDING


def test_who_waits_for_a_thread_is_failed(unanswered: Unanswered) -> None:
    is_done = threading.Event()
    pool = ThreadPool(1)

    def request() -> None:
        with unanswered:
            pool.apply(is_done.wait)

    made = gevent.spawn(request)
    gevent.idle()
    unanswered.fail_all(ENDING)
    made.join(LIMIT_S)
    is_done.set()
    pool.kill()
    assert made.exception is ENDING


def test_who_answers_is_left_alone(unanswered: Unanswered) -> None:
    is_written = Event()

    def request() -> str:
        with unanswered:
            gevent.sleep(0)
        is_written.wait()
        return "answer"

    made = gevent.spawn(request)
    gevent.idle()
    unanswered.fail_all(ENDING)
    gevent.idle()
    is_written.set()
    assert made.get(timeout=LIMIT_S) == "answer"


def test_who_begins_to_answer_meanwhile_is_left_alone(unanswered: Unanswered) -> None:
    is_ready, is_written = Event(), Event()

    def request() -> str:
        with unanswered:
            is_ready.wait()
        is_written.wait()
        return "answer"

    made = gevent.spawn(request)
    gevent.idle()
    is_ready.set()
    unanswered.fail_all(ENDING)
    gevent.idle()
    is_written.set()
    assert made.get(timeout=LIMIT_S) == "answer"


def test_who_comes_later_is_failed_the_next_time(unanswered: Unanswered) -> None:
    unanswered.fail_all(ENDING)

    def request() -> None:
        with unanswered:
            Event().wait()

    made = gevent.spawn(request)
    gevent.idle()
    assert not made.ready()
    unanswered.fail_all(ENDING)
    made.join(LIMIT_S)
    assert made.exception is ENDING
