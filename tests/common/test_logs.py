"""Lines of the log: their form, their ids, and what does not flood them."""

import io
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.logs import BURST, WINDOW_S, CalmHandler, JsonFormatter, TextFormatter, about, say
from common.messages import SequenceSpec
from common.sampling import SamplingParameters

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Log:
    """A logger of its own, its clock, and what it has written."""

    def __init__(self, formatter: logging.Formatter | None = None) -> None:
        self.clock = Clock()
        self.stream = io.StringIO()
        self.handler = CalmHandler(self.stream, self.clock)
        self.handler.setFormatter(formatter or logging.Formatter("%(levelname)s %(message)s"))
        self.logger = logging.Logger("test", logging.DEBUG)
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_a_flood_becomes_a_few_lines_and_a_count() -> None:
    log = Log()
    for number in range(100):
        log.logger.warning("lost %d", number)
    assert log.lines == [f"WARNING lost {number}" for number in range(BURST)]
    log.clock.now += WINDOW_S
    log.logger.info("something else")
    assert log.lines[BURST:] == [
        f"WARNING repeated {100 - BURST} times more within {WINDOW_S:.0f} s: lost 99",
        "INFO something else",
    ]
    log.logger.warning("lost %d", 100)
    assert log.lines[-1] == "WARNING lost 100"


def test_the_count_is_written_at_the_end_at_the_latest() -> None:
    log = Log()
    for _ in range(BURST + 2):
        log.logger.error("again")
    log.handler.tell(float("inf"))
    assert log.lines[-1] == "ERROR repeated 2 times more within 10 s: again"
    log.handler.tell(float("inf"))
    assert len(log.lines) == BURST + 1


def test_seldom_warnings_and_other_lines_are_all_written() -> None:
    log = Log()
    for number in range(50):
        log.logger.info("request %d", number)
        log.logger.warning("%s", f"note {number}")
        log.logger.warning(f"kind {number}")
    for _ in range(50):
        log.clock.now += WINDOW_S
        log.logger.warning("again")
    assert len(log.lines) == 200


def test_endless_kinds_of_warnings_take_no_endless_memory() -> None:
    log = Log()
    for number in range(10_000):
        log.logger.warning(f"kind {number}")
    assert len(log.lines) == 10_000
    assert len(log.handler._kinds) <= 256


def test_lines_about_a_sequence_name_its_request_and_its_trace() -> None:
    spec = SequenceSpec(
        0xAB, [1], 1, SamplingParameters(), request="r1", traceparent=f"00-{TRACE}-{SPAN}-00"
    )
    assert about(spec) == {"sequence": "ab", "request": "r1", "trace": TRACE}
    plain = SequenceSpec(0xAB, [1], 1, SamplingParameters())
    assert about(plain) == {"sequence": "ab"}
    for formatter, sought in (
        (JsonFormatter("worker"), [f'"request":"r1","trace":"{TRACE}","sequence":"ab"']),
        (TextFormatter("worker"), ["worker", f"failed request=r1 trace={TRACE} sequence=ab"]),
    ):
        log = Log(formatter)
        log.logger.warning("failed", extra=about(spec))
        assert all(words in log.lines[0] for words in sought)


def test_what_json_knows_not_is_written_as_text() -> None:
    log = Log(JsonFormatter("worker"))
    log.logger.warning("failed", extra={"fields": {"path": Path("/x")}})
    assert json.loads(log.lines[0])["path"] == "/x"


def test_text_does_not_repeat_ids() -> None:
    log = Log(TextFormatter("frontend"))
    log.logger.info("request=r1 status=200", extra={"request": "r1"})
    assert log.lines[0].count("r1") == 1


def test_a_line_without_logging() -> None:
    text = say("supervisor", "stopping", json_output=False)
    assert re.fullmatch(r"\d{4}-\S+ \S+ ERROR   supervisor  stopping", text)
    line = json.loads(say("supervisor", "stopping", json_output=True, level=logging.INFO))
    assert (line["process"], line["level"], line["message"]) == ("supervisor", "INFO", "stopping")


_CRASHES = """
import logging, threading, warnings
from common.logs import set_up
set_up("worker-0", json_output=True)
warnings.warn("old-fashioned")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
for _ in range(7):
    logging.error("again")
raise RuntimeError("the end")
"""


def test_whatever_a_process_says_is_json() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CRASHES], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    said = [line["message"] for line in lines]
    assert "old-fashioned" in said[0]
    assert said[1] == "a thread ends"
    assert said[2:7] == ["again"] * 5
    assert said[7] == "this process ends"
    assert "RuntimeError: the end" in lines[7]["exception"]
    assert said[8] == "repeated 2 times more within 10 s: again"
