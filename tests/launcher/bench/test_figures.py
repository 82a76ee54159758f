"""Figures against values worked out by hand, and their names against vLLM's."""

import pytest

from launcher.bench.client import Outcome
from launcher.bench.figures import detailed, failures, figures, load_fields
from launcher.bench.generator import Closed, Open, Run

FAST = Outcome(10.0, 0.1, [0.1, 0.3], 0.5, input_tokens=7, output_tokens=3)
SLOW = Outcome(10.2, 0.3, [0.2], 0.5, input_tokens=5, output_tokens=2)
BAD = Outcome(10.0, failure="429: no room")

VLLM_NAMES = {
    *("duration", "completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *("max_concurrent_requests",),
    *(
        f"{statistic}_{name}_ms"
        for statistic in ("mean", "median", "std", "p99")
        for name in ("ttft", "tpot", "itl", "e2el")
    ),
}


def test_figures() -> None:
    found = figures(Run([FAST, SLOW, BAD, BAD], began_s=10.0, wall_s=2.0, late_s=0.01))
    assert found.keys() >= VLLM_NAMES
    assert (found["completed"], found["failed"]) == (2, 2)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (12, 5)
    assert found["request_throughput"] == 1.0
    assert found["output_throughput"] == 2.5
    assert found["total_token_throughput"] == 8.5
    assert found["mean_ttft_ms"] == pytest.approx(200)
    assert found["std_ttft_ms"] == pytest.approx(100)
    assert found["p90_ttft_ms"] == pytest.approx(280), "interpolated between 100 and 300"
    assert found["mean_tpot_ms"] == pytest.approx(200), "(500-100)/2 and (500-300)/1"
    assert found["median_itl_ms"] == pytest.approx(200), "of 100, 200 and 300"
    assert found["mean_e2el_ms"] == pytest.approx(500)
    assert found["max_concurrent_requests"] == 2
    assert found["failures"] == {"429: no room": 2}
    assert found["max_start_delay_ms"] == pytest.approx(10)


def test_reasons_that_differ_in_numbers_are_one() -> None:
    texts = [
        "422: 1 of 9",
        "503: 1 of 9",
        "422: 20 of 9",
        "422: 3 of 9",
        "lost after 2",
        "lost after 3",
        "",
    ]
    outcomes = [Outcome(10.0, failure=text) for text in texts]
    assert failures(outcomes) == [("422: 1 of 9", 3), ("lost after 2", 2), ("503: 1 of 9", 1)]


def test_nothing_succeeded() -> None:
    found = figures(Run([BAD], wall_s=1.0))
    assert (found["completed"], found["mean_ttft_ms"], found["output_throughput"]) == (0, 0, 0)


def test_those_that_leave_make_room_for_those_that_come() -> None:
    turns = [Outcome(float(start), 0.1, [], 1.0, output_tokens=1) for start in range(3)]
    assert figures(Run(turns, wall_s=3.0))["max_concurrent_requests"] == 1


def test_loads_and_details_as_vllm_writes_them() -> None:
    assert load_fields(Closed(4))["request_rate"] == "inf"
    assert load_fields(Closed(4))["max_concurrency"] == 4
    assert load_fields(Open(2.5))["request_rate"] == 2.5
    found = detailed(Run([FAST, BAD], began_s=9.0))
    assert found["itls"] == [[0.1, 0.3], []]
    assert found["start_times"] == [1.0, 1.0]
    assert found["errors"] == ["", "429: no room"]
