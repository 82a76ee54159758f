"""Grammars in the real front end: bombs are refused, and it serves others meanwhile.

The model of this test heeds no grammar; only what the front end does with one is looked at.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.frontend.front import Front, body, running, until

BOMB = {"type": "json", "value": {"type": "integer", "multipleOf": 999983}}


@pytest.fixture(scope="module")
def front(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    runtime_dir = tmp_path_factory.mktemp("front") / "run"
    with running(model_dir, runtime_dir, grammar_compile_timeout=1.0) as made:
        yield made


def checker_of(front_end: int) -> int:
    """Process id of the only child of a front-end process."""
    (child,) = Path(f"/proc/{front_end}/task/{front_end}/children").read_text().split()
    assert b"frontend.guidance.checker" in Path(f"/proc/{child}/cmdline").read_bytes()
    return int(child)


def ask(front: Front, grammar: Any) -> tuple[int, Any]:
    status, _, data = front.request("POST", "/generate", body(3, grammar=grammar))
    return status, json.loads(data)


def test_good_and_bad_ones(front: Front) -> None:
    assert ask(front, {"type": "regex", "value": "x+"}) == (200, {"generated_text": "xxx"})
    status, error = ask(front, {"type": "regex", "value": "x("})
    assert status == 422
    assert "unclosed group" in error["error"]


def test_a_bomb_holds_up_nobody_else(front: Front) -> None:
    bombed: list[tuple[int, Any]] = []
    thread = threading.Thread(target=lambda: bombed.append(ask(front, BOMB)))
    thread.start()
    served = 0
    while thread.is_alive():
        assert front.request("POST", "/generate", body(3))[0] == 200
        served += 1
    thread.join()
    assert bombed[0][0] == 422
    assert "`grammar` cannot be used" in bombed[0][1]["error"]
    assert served > 5
    assert ask(front, {"type": "regex", "value": "y+"})[0] == 200
    assert "multipleOf" not in front.output()


def test_the_checker_ends_with_its_front_end(front: Front) -> None:
    (child,) = front.children()
    checker = Path(f"/proc/{checker_of(child)}")
    os.kill(child, signal.SIGKILL)
    until(lambda: not checker.exists())
    until(lambda: front.children() not in ([], [child]))
    until(front.listens)
    assert ask(front, {"type": "regex", "value": "x+"})[0] == 200
