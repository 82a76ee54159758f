"""What the balancers' files say fits what the server does. ``tests/operate`` runs them."""

import re

import pytest

from common.options import OPTIONS
from common.routes import ALWAYS_OPEN
from frontend.sse import KEEP_ALIVE_S
from tests.deploy.queries import DEPLOY

HAPROXY = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
NGINX = (DEPLOY / "nginx" / "millrace.conf").read_text()
UNITS_S = {"s": 1, "m": 60, "h": 3600}


def statements(text: str) -> list[str]:
    """Without comments and the spaces around."""
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]


def seconds(text: str, pattern: str) -> list[int]:
    """Durations such as ``1h`` behind a word, wherever it stands."""
    found = re.findall(rf"(?m)^\s*{pattern} (\d+)([smh]);?$", text)
    return [int(number) * UNITS_S[unit] for number, unit in found]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (HAPROXY, "timeout client"),
        (HAPROXY, "timeout server"),
        (NGINX, "proxy_read_timeout"),
    ],
)
def test_silence_is_borne(text: str, pattern: str) -> None:
    (limit_s,) = seconds(text, pattern)
    assert limit_s >= 3600
    assert limit_s > 10 * KEEP_ALIVE_S


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (HAPROXY, "timeout http-request"),
        (NGINX, "client_header_timeout"),
        (NGINX, "client_body_timeout"),
        (NGINX, "send_timeout"),
    ],
)
def test_slow_clients_are_not(text: str, pattern: str) -> None:
    (limit_s,) = seconds(text, pattern)
    assert 10 <= limit_s <= 60


def test_haproxy_asks_whether_a_server_is_ready() -> None:
    (path,) = re.findall(r"http-check send meth GET uri (\S+)", HAPROXY)
    assert path == "/health/ready"
    assert path in ALWAYS_OPEN
    assert "http-check expect status 200" in HAPROXY


def test_load_decides() -> None:
    assert "balance leastconn" in statements(HAPROXY)
    assert {"least_conn;", "zone millrace 64k;"} <= set(statements(NGINX))


def test_only_what_has_not_begun_is_repeated() -> None:
    assert "retry-on conn-failure 503" in statements(HAPROXY)
    first, elsewhere = NGINX.split("location @elsewhere")
    assert "proxy_next_upstream error timeout;" in statements(first)
    assert "non_idempotent" not in " ".join(statements(first))
    assert "error_page 503 = @elsewhere;" in statements(first)
    assert "http_503" in elsewhere


def test_no_connection_to_a_server_is_kept() -> None:
    assert "option http-server-close" in statements(HAPROXY)
    assert not [line for line in statements(NGINX) if re.match(r"keepalive\s", line)]


def test_connections_of_other_balancers_are_kept_for_longer_than_by_them() -> None:
    conf = (DEPLOY.parent / "frontend" / "gunicorn_conf.py").read_text()
    (kept_s,) = re.findall(r"^keepalive = (\d+)$", conf, re.MULTILINE)
    assert int(kept_s) > 600, "Google Cloud's"


def test_bodies_that_the_server_takes_pass() -> None:
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", NGINX)
    assert int(megabytes) * 2**20 >= OPTIONS["payload_limit"].default


def test_tokens_are_not_held_back() -> None:
    assert "proxy_buffering off;" in statements(NGINX)
