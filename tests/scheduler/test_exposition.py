"""The listener of --prometheus-port, and the text format."""

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from common.errors import StartupError
from scheduler.exposition import MOST_CONNECTIONS, Listener, render


def get(port: int, path: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body


def test_names_with_and_without_total() -> None:
    registry = CollectorRegistry()
    Counter("bare", "one", registry=registry).inc()
    Counter("own", "two\nlines", ["x"], registry=registry).labels('a"b\\c\n').inc(2)
    Gauge("infinite", "three", registry=registry).set(float("inf"))
    assert render(registry, frozenset({"bare"})).decode() == (
        "# HELP bare one\n# TYPE bare counter\nbare 1.0\n"
        '# HELP own_total two\\nlines\n# TYPE own_total counter\nown_total{x="a\\"b\\\\c\\n"} 2.0\n'
        "# HELP infinite three\n# TYPE infinite gauge\ninfinite +Inf\n"
    )


def test_a_second_name_has_the_same_values() -> None:
    registry = CollectorRegistry()
    Counter("bare", "one", ["x"], registry=registry).labels("a").inc()
    Histogram("took", "two", buckets=(1, 2), registry=registry).observe(1.5)
    aliases = {"bare": "bare_total", "took": "took_seconds"}
    text = render(registry, frozenset({"bare"}), aliases).decode()
    assert '# TYPE bare counter\nbare{x="a"} 1.0\n' in text
    assert '# TYPE bare_total counter\nbare_total{x="a"} 1.0\n' in text
    assert "# HELP took_seconds The same as took\n# TYPE took_seconds histogram\n" in text
    for rest in ('_bucket{le="2.0"} 1.0', "_sum 1.5", "_count 1.0"):
        assert f"\ntook{rest}\n" in text
        assert f"\ntook_seconds{rest}\n" in text


def test_listener() -> None:
    listener = Listener(lambda: b"x 1.0\n", "127.0.0.1", 0)
    try:
        status, kind, body = get(listener.port, "/metrics")
        assert (status, body) == (200, b"x 1.0\n")
        assert kind.startswith("text/plain; version=0.0.4")
        assert get(listener.port, "/")[0] == 404
        with pytest.raises(StartupError, match=r"--prometheus-port") as refused:
            Listener(lambda: b"", "127.0.0.1", listener.port)
        assert "\n" not in str(refused.value)
    finally:
        listener.close()


def test_a_crowd_of_scrapers_is_bounded() -> None:
    inside, go_on = threading.Semaphore(0), threading.Event()

    def text() -> bytes:
        inside.release()
        assert go_on.wait(20)
        return b"x 1.0\n"

    listener = Listener(text, "127.0.0.1", 0)
    try:
        with ThreadPoolExecutor(MOST_CONNECTIONS) as pool:
            waiting = [pool.submit(get, listener.port, "/metrics") for _ in range(MOST_CONNECTIONS)]
            for _ in waiting:
                assert inside.acquire(timeout=20)
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                get(listener.port, "/metrics")
            go_on.set()
            assert {answer.result()[0] for answer in waiting} == {200}
        assert get(listener.port, "/metrics")[0] == 200
    finally:
        listener.close()


def test_a_hostname_that_does_not_exist() -> None:
    with pytest.raises(StartupError, match="cannot serve metrics on"):
        Listener(lambda: b"", "no such host", 9)
