"""One request: what is sent, what is counted, and every way to fail."""

import pytest

from common.errors import StartupError
from launcher.bench.client import Client, Outcome, Target
from launcher.bench.probe import model_of, ruler_of
from launcher.bench.protocols import PROTOCOLS, Asking
from launcher.bench.scenarios import Ruler, Work
from tests.launcher.bench.standin import Standin, serving

TALK = Work(("one two", "three", "four"), 5)


def ask(state: Standin, api: str = "chat", timeout_s: float = 30.0, **headers: str) -> Outcome:
    with serving(state) as url:
        target = Target(url + "/", headers, timeout_s)
        return Client(target, PROTOCOLS[api], Asking("m")).send(TALK)


@pytest.mark.parametrize("api", PROTOCOLS)
def test_a_stream_is_counted(api: str) -> None:
    state = Standin()
    outcome = ask(state, api, authorization="Bearer key")
    assert outcome.failure == ""
    assert outcome.output_tokens == 5
    assert outcome.input_tokens > 8
    assert len(outcome.gaps_s) == 4, "the role of a chat is no token"
    assert 0 < outcome.first_s <= outcome.total_s
    assert outcome.total_s == pytest.approx(outcome.first_s + sum(outcome.gaps_s))
    assert not outcome.counted_events
    ((path, body, key),) = state.asked
    assert (path, key) == (PROTOCOLS[api].path, "Bearer key")
    if api == "chat":
        assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    else:
        text = body.get("prompt") or body["inputs"]
        assert text == "User: one two\nAssistant: three\nUser: four\nAssistant:"


@pytest.mark.parametrize("api", PROTOCOLS)
def test_a_server_that_does_not_count(api: str) -> None:
    outcome = ask(Standin(counts=False), api)
    assert (outcome.failure, outcome.output_tokens, outcome.counted_events) == ("", 5, True)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (Standin(status=429), "429: no room"),
        (Standin(break_off=True), "the stream broke off after 2 events"),
        (Standin(error_event=True), "it broke"),
    ],
)
def test_failures_are_outcomes(state: Standin, words: str) -> None:
    assert ask(state, "tgi").failure == words


def test_a_request_that_never_ends_is_given_up() -> None:
    assert ask(Standin(silent=True), timeout_s=0.2).failure == "no end within 0.2 s"


def test_nobody_there() -> None:
    client = Client(Target("http://127.0.0.1:1"), PROTOCOLS["tgi"], Asking("m"))
    assert "refused" in client.send(TALK).failure


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://a", "http://", "http://a:x", "http://["]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(StartupError, match="--url"):
        Target(url).check()


@pytest.mark.parametrize("url", ["http://a:80/v1", "http://a/proxy/v1/"])
def test_the_address_that_openai_s_clients_take(url: str) -> None:
    with pytest.raises(StartupError, match="leave out the /v1"):
        Target(url).check()


@pytest.mark.parametrize("url", ["http://v1", "http://a/v1/proxy", "https://a/"])
def test_addresses(url: str) -> None:
    Target(url).check()


def test_the_probe_measures_words() -> None:
    with serving(Standin()) as url:
        target = Target(url)
        assert model_of(target) == "stand-in"
        found = ruler_of(Client(target, PROTOCOLS["tgi"], Asking("m")).send, url)
    assert found == Ruler(0.5, 1.0)
    assert found.words(21) == 10


def test_the_probe_says_at_once_what_is_wrong() -> None:
    with serving(Standin(status=401)) as url:
        client = Client(Target(url), PROTOCOLS["tgi"], Asking("m"))
        with pytest.raises(StartupError, match="401: no room; give --api-key"):
            ruler_of(client.send, url)
    with pytest.raises(StartupError, match="is the server up"):
        model_of(Target("http://127.0.0.1:1"))
