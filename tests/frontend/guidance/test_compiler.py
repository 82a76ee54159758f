"""The queue before the checker: one check for equals, bounds, lost checkers, switched off."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from common.errors import ErrorKind, RequestError
from frontend.guidance.compiler import Checker, NoGrammars, grammars_of
from frontend.guidance.frames import Setup, Verdict
from frontend.guidance.process import CheckerLostError, CheckerProcess, UnusableTokenizerError
from frontend.guidance.source import GrammarSource
from tests.frontend.fakes import Clock, settings

MOST_WAITING = 5


@dataclass
class Script:
    """A checker that does what the grammar says, and waits for ``go``."""

    go: Event = field(default_factory=Event)
    checks: list[str] = field(default_factory=list)
    starts: int = 0
    ends: int = 0
    losses: int = 0
    """So many times it is lost at first."""
    trouble: Exception | None = None

    def start(self) -> "Script":
        self.starts += 1
        if self.trouble is not None:
            raise self.trouble
        return self

    def check(self, source: GrammarSource) -> Verdict:
        self.checks.append(source.text)
        self.go.wait()
        self.losses -= 1
        if source.text == "lost" or self.losses >= 0:
            raise CheckerLostError
        if source.text == "mistake":
            raise KeyError
        return Verdict(error="no") if source.text == "bad" else Verdict(grammar=source.text.upper())

    def close(self) -> None:
        self.ends += 1


@dataclass
class Made:
    script: Script
    checker: Checker
    clock: Clock

    def ask(self, text: str) -> "gevent.Greenlet[[], str]":
        asked = gevent.spawn(self.checker.checked, GrammarSource("regex", text))
        gevent.idle()
        return asked

    def error(self, text: str) -> RequestError:
        with pytest.raises(RequestError) as caught:
            self.checker.checked(GrammarSource("regex", text))
        return caught.value


@pytest.fixture
def made() -> Made:
    script, clock = Script(), Clock()
    return Made(script, Checker(script.start, 5.0, MOST_WAITING, clock), clock)


def test_the_first_grammar_starts_it(made: Made) -> None:
    assert made.script.starts == 0
    made.script.go.set()
    assert made.ask("a").get(timeout=1) == "A"
    assert made.ask("b").get(timeout=1) == "B"
    assert made.script.starts == 1


def test_equals_share_a_check_and_its_result(made: Made) -> None:
    asked = [made.ask(text) for text in ("a", "b", "a", "a")]
    made.script.go.set()
    assert [one.get(timeout=1) for one in asked] == ["A", "B", "A", "A"]
    assert made.ask("a").get(timeout=1) == "A"
    assert made.script.checks == ["a", "b"]


def test_bad_ones_are_remembered_too(made: Made) -> None:
    made.script.go.set()
    for _ in range(2):
        error = made.error("bad")
        assert error.kind is ErrorKind.VALIDATION
        assert error.message == "Input validation error: `grammar` cannot be used: no"
    assert made.script.checks == ["bad"]


def test_a_client_that_leaves_takes_nothing_along(made: Made) -> None:
    first, second, third = made.ask("a"), made.ask("b"), made.ask("a")
    first.kill()
    second.kill()
    made.script.go.set()
    assert third.get(timeout=1) == "A"
    assert made.ask("c").get(timeout=1) == "C"
    assert made.script.checks == ["a", "b", "c"]


def test_the_queue_is_bounded(made: Made) -> None:
    waiting = [made.ask(str(number)) for number in range(MOST_WAITING)]
    error = made.error("one more")
    assert error.kind is ErrorKind.OVERLOADED
    assert error.retry_after_s
    again = made.ask("0")
    made.script.go.set()
    assert again.get(timeout=1) == "0"
    assert [one.get(timeout=1) for one in waiting] == [str(n) for n in range(MOST_WAITING)]
    assert made.ask("one more").get(timeout=1) == "ONE MORE"


def test_patience_ends() -> None:
    script = Script()
    checker = Checker(script.start, 0.001, MOST_WAITING)
    source = GrammarSource("regex", "a")
    with pytest.raises(RequestError) as caught:
        checker.checked(source)
    assert caught.value.kind is ErrorKind.OVERLOADED
    script.go.set()
    gevent.idle()
    assert checker.checked(source) == "A"
    assert script.checks == ["a"]


def test_a_grammar_that_loses_two_checkers_is_refused(made: Made) -> None:
    made.script.go.set()
    assert made.error("lost").kind is ErrorKind.VALIDATION
    assert made.ask("a").get(timeout=1) == "A"
    assert made.script.starts == 3
    made.error("lost")
    assert made.script.checks == ["lost", "lost", "a"]
    made.clock.now += 61
    made.error("lost")
    assert made.script.checks == ["lost", "lost", "a", "lost", "lost"]


def test_a_checker_that_somebody_killed_is_nobodys_fault(made: Made) -> None:
    made.script.go.set()
    made.script.losses = 1
    assert made.ask("a").get(timeout=1) == "A"
    assert made.script.starts == 2


def test_trouble_of_ours_is_no_verdict(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    made.script.go.set()
    made.script.trouble = OSError("no more processes")
    assert made.error("secret words").kind is ErrorKind.UNAVAILABLE
    assert "OSError" in caplog.text
    made.script.trouble = None
    assert made.ask("secret words").get(timeout=1) == "SECRET WORDS"
    assert made.error("mistake").kind is ErrorKind.UNAVAILABLE
    assert "secret" not in caplog.text


def test_an_unusable_tokenizer_is_found_out_once(made: Made) -> None:
    made.script.trouble = UnusableTokenizerError("no decoder")
    for text in "ab":
        error = made.error(text)
        assert error.kind is ErrorKind.VALIDATION
        assert "tokenizer of this model" in error.message
    assert made.script.starts == 1


def test_closing_tells_those_who_wait(made: Made) -> None:
    waiting = [made.ask("a"), made.ask("b")]
    made.checker.close()
    for one in waiting:
        with pytest.raises(RequestError):
            one.get(timeout=1)
    assert made.script.ends == 1
    made.checker.close()


def test_switched_off() -> None:
    off = grammars_of(settings(disable_grammar_support=True), [])
    assert isinstance(off, NoGrammars)
    with pytest.raises(RequestError, match="switched off") as caught:
        off.checked(GrammarSource("regex", "a"))
    assert caught.value.kind is ErrorKind.VALIDATION
    off.close()


Start = Callable[[float], CheckerProcess]


@pytest.fixture
def start(model_dir: Path, request: pytest.FixtureRequest) -> Start:
    def started(time_s: float) -> CheckerProcess:
        path = str(model_dir / "tokenizer.json")
        made = CheckerProcess(
            Setup(tokenizer=path, end_ids=[], time_s=time_s, memory_bytes=256 << 20)
        )
        request.addfinalizer(made.close)
        return made

    return started


def test_a_real_process(start: Start) -> None:
    process = start(5.0)
    assert '"grammars"' in process.check(GrammarSource("regex", "a+")).grammar
    process.close()
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    with pytest.raises(CheckerLostError):
        process.check(GrammarSource("regex", "a+"))


def test_a_real_bomb(start: Start) -> None:
    """Its check alone ends; other greenlets go on meanwhile."""
    process = start(0.3)
    turns = 0

    def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0.001)

    turning = gevent.spawn(turn)
    bomb = GrammarSource("json_schema", '{"type":"integer","multipleOf":999983}')
    verdict = process.check(bomb)
    turning.kill()
    assert verdict.exhausted
    assert turns > 20
    assert process.check(GrammarSource("regex", "a+")).error == ""


def test_a_process_that_is_killed(start: Start) -> None:
    process = start(5.0)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(CheckerLostError):
        process.check(GrammarSource("regex", "a+"))


def test_a_path_that_is_no_tokenizer(tmp_path: Path) -> None:
    path = str(tmp_path / "tokenizer.json")
    with pytest.raises(UnusableTokenizerError):
        CheckerProcess(Setup(tokenizer=path, end_ids=[], time_s=1.0, memory_bytes=1 << 20))
