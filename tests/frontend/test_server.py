"""What is answered where gunicorn could not read a request."""

import json
from typing import Any, cast

import pytest
from gevent import socket
from gunicorn.http import errors

from frontend.server import FrontendWorker


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.LimitRequestLine(9000, 8190), 414, "validation"),
        (errors.InvalidHeader("hush"), 400, "validation"),
        (ValueError("hush"), 500, "internal"),
    ],
)
def test_whose_fault_it_was(
    error: Exception, status: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = socket.socketpair()
    with server, client:
        client.shutdown(socket.SHUT_WR)
        FrontendWorker.handle_error(cast(Any, None), None, server, None, error)
        head, body = client.recv(10_000).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error_type"] == kind
    assert ("a connection failed: ValueError" in caplog.text) == (status == 500)
    assert b"hush" not in body
    assert "hush" not in caplog.text
