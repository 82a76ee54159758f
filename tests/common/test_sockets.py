"""Endpoints, routing ids, the runtime directory, and the options of real sockets."""

import os
from pathlib import Path

import pytest
import zmq

from common.messages import Alive
from common.sockets import (
    FROM_FRONTEND,
    MAX_FRAME_BYTES,
    SPANS,
    SpanSender,
    check_runtime_dir,
    dispatch_endpoint,
    encode,
    frontend_identity,
    open_socket,
    requests_endpoint,
    tokens_endpoint,
    traces_endpoint,
    worker_identity,
)
from common.spans import Spans


def test_endpoints_are_distinct_files_in_the_runtime_directory() -> None:
    endpoints = [requests_endpoint("/r"), dispatch_endpoint("/r")]
    endpoints += [tokens_endpoint("/r", n) for n in range(3)]
    assert len(set(endpoints)) == 5
    assert all(endpoint.startswith("ipc:///r/") for endpoint in endpoints)


def test_routing_ids_are_distinct_and_short() -> None:
    workers = [(0, 1), (1, 1), (1, 0), (0, 2**63 - 1)]
    ids = {worker_identity(*worker) for worker in workers}
    ids |= {frontend_identity(number) for number in (1, 2**31 - 1)}
    assert len(ids) == 6
    assert all(0 < len(identity) <= 255 and identity[0] != 0 for identity in ids)


@pytest.mark.parametrize("mode", [0o700, 0o600, 0o500])
def test_private_directories_are_accepted(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    check_runtime_dir(str(tmp_path))
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777, 0o704])
def test_open_directories_are_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match="0700"):
        check_runtime_dir(str(tmp_path))


def test_only_a_directory_is_accepted(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    file = tmp_path / "file"
    file.touch(0o600)
    for path in (link, file):
        with pytest.raises(PermissionError):
            check_runtime_dir(str(path))
    with pytest.raises(FileNotFoundError):
        check_runtime_dir(str(tmp_path / "nothing"))


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    longest = 107 - len("/supervisor.sock.4194304")
    directory = tmp_path / ("x" * (longest - len(str(tmp_path)) - 1))
    directory.mkdir(mode=0o700)
    check_runtime_dir(str(directory))
    longer = directory.rename(f"{directory}x")
    with pytest.raises(ValueError, match="too long"):
        check_runtime_dir(str(longer))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(PermissionError):
        check_runtime_dir(str(tmp_path))


def test_router_reports_unknown_peers_and_reaches_known_ones(tmp_path: Path) -> None:
    context = zmq.Context()
    router = open_socket(context, zmq.ROUTER)
    dealer = open_socket(context, zmq.DEALER, identity=frontend_identity(1))
    try:
        router.bind(requests_endpoint(str(tmp_path)))
        dealer.connect(requests_endpoint(str(tmp_path)))
        with pytest.raises(zmq.ZMQError) as refused:
            router.send_multipart((frontend_identity(2), b""))
        assert refused.value.errno == zmq.EHOSTUNREACH
        dealer.send(encode(Alive(1)))
        assert router.poll(5000)
        identity, frame = router.recv_multipart()
        assert (identity, FROM_FRONTEND.decode(frame)) == (frontend_identity(1), Alive(1))
        assert router.getsockopt(zmq.MAXMSGSIZE) == MAX_FRAME_BYTES
        assert router.linger == 0
    finally:
        router.close()
        dealer.close()
        context.term()


def test_spans_that_no_tracer_takes_are_lost_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("common.sockets.MOST_SPANS", 2)
    context = zmq.Context()
    sender = SpanSender(context, str(tmp_path))
    tracer = open_socket(context, zmq.PULL)
    try:
        for number in range(5):
            sender(Spans(str(number), []))
        assert len(caplog.records) == 1
        tracer.bind(traces_endpoint(str(tmp_path)))
        assert [SPANS.decode(tracer.recv()).process for _ in range(2)] == ["0", "1"]
    finally:
        sender.close()
        tracer.close()
        context.term()


def test_xpub_reports_every_subscription(tmp_path: Path) -> None:
    context = zmq.Context()
    publisher = open_socket(context, zmq.XPUB)
    subscribers = [open_socket(context, zmq.SUB) for _ in range(2)]
    try:
        publisher.bind(tokens_endpoint(str(tmp_path), 0))
        for subscriber in subscribers:
            subscriber.connect(tokens_endpoint(str(tmp_path), 0))
            subscriber.subscribe(b"\0\0\0\1")
            assert publisher.poll(5000)
            assert publisher.recv() == b"\1\0\0\0\1"
    finally:
        for opened in (publisher, *subscribers):
            opened.close()
        context.term()
