"""What operators look at: first tokens, gaps, stalls, what the waiting wait for, restarts."""

import pytest

from common.messages import Cancel, FrontendGone, Retire, StepTiming, Submit, Tally
from scheduler.requests import State
from scheduler.series import Catalogue, WorstOf
from tests.scheduler.harness import TIMING, House, sequence_id, spec, started

ONE, TWO = sequence_id(1), sequence_id(2)


def decoding(count: int, gap_s: float) -> StepTiming:
    return StepTiming(0, count, 0.004, 0.001, 0.0005, 0.006, gap_s)


def waiting(house: House) -> dict[str, float]:
    (family,) = [
        f for f in house.metrics.registry.collect() if f.name == "millrace_waiting_sequences"
    ]
    return {s.labels["reason"]: s.value for s in family.samples if s.value}


def test_time_to_first_token_counts_from_the_arrival_of_the_request() -> None:
    house = started()
    house.from_frontend(Submit(spec(1), age_s=0.5))
    house.turn()
    house.clock.now += 2.0
    house.report(house.token(ONE, 7))
    house.clock.now += 1.0
    house.report(house.token(ONE, 7))
    assert house.metric("millrace_time_to_first_token_seconds_count") == 1
    assert house.metric("millrace_time_to_first_token_seconds_sum") == 2.5


def test_what_another_scheduler_began_has_no_first_token_here() -> None:
    house = started()
    house.submit(1, attempt=1, generated_ids=[7, 7])
    house.report(house.token(ONE, 7))
    assert house.metric("millrace_time_to_first_token_seconds_count") == 0


def test_gaps_count_once_for_each_sequence_that_decodes() -> None:
    house = started()
    house.report(timing=decoding(3, 0.25))
    house.report(timing=decoding(2, 0.0))
    house.report(timing=StepTiming(9, 0, 0.1, 0.1, 0.1, 0.3, 0.3))
    assert house.metric("millrace_inter_token_seconds_count") == 3
    assert house.metric("millrace_inter_token_seconds_sum") == 0.75
    assert house.metric("millrace_worst_stall_seconds") == 0.25


def test_a_lost_worker_is_a_pause_that_ends_with_the_next_token() -> None:
    house = started()
    house.submit(1)
    house.report(house.token(ONE, 7))
    house.ready(incarnation=10)
    house.clock.now += 5.0
    assert house.metric("millrace_worst_stall_seconds") == 5.0
    house.from_frontend(Submit(spec(1), attempt=1, generated_ids=[7]))
    house.turn()
    house.clock.now += 1.0
    house.report(house.token(ONE, 7))
    assert house.metric("millrace_inter_token_seconds_count") == 1
    assert house.metric("millrace_inter_token_seconds_sum") == 6.0
    assert house.metric("millrace_worst_stall_seconds") == 6.0
    house.clock.now += 61.0
    house.report(house.token(ONE, 7, finish="length"))
    assert house.metric("millrace_worst_stall_seconds") == TIMING.total_s


def test_a_worker_that_says_nothing_is_a_stall_that_lasts() -> None:
    house = started()
    house.submit(1)
    house.report(house.token(ONE, 7))
    house.clock.now += 3.0
    assert house.metric("millrace_worst_stall_seconds") == 3.0


def preempt(house: House) -> None:
    replica = house.parts.replicas.get(0)
    assert replica is not None
    house.parts.planner._recovery.preempt(replica, house.record(ONE))
    house.report(released=[ONE], timing=None)


def test_a_sequence_that_is_preempted_before_its_first_token_has_no_pause() -> None:
    house = started()
    house.submit(1)
    preempt(house)
    house.clock.now += 5.0
    assert house.parts.requests.interrupted() == []
    house.report(house.token(ONE, 7))
    assert house.metric("millrace_inter_token_seconds_count") == 0


def test_a_pause_begins_with_the_last_token_however_often_it_is_begun_anew() -> None:
    house = started()
    house.submit(1)
    house.report(house.token(ONE, 7))
    for _ in range(3):
        preempt(house)
        house.clock.now += 2.0
    house.report(house.token(ONE, 7))
    assert house.metric("millrace_inter_token_seconds_count") == 1
    assert house.metric("millrace_inter_token_seconds_sum") == 6.0


def test_the_replacement_of_a_worker_is_a_pause() -> None:
    house = started()
    house.submit(1)
    house.report(house.token(ONE, 7))
    house.from_frontend(Retire(5, 0), 77)
    house.turn()
    house.report(released=[ONE], timing=None)
    house.clock.now += 2.0
    assert house.metric("millrace_worst_stall_seconds") == 2.0
    house.ready(incarnation=99)
    house.report(house.token(ONE, 7))
    assert house.metric("millrace_inter_token_seconds_sum") == 2.0


def test_the_waiting_wait_for_a_replica() -> None:
    house = House()
    house.hello()
    house.submit(1)
    house.submit(2)
    assert waiting(house) == {"replica": 2}
    house.ready()
    assert waiting(house) == {}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_batch_size": 1}, "seat"),
        ({"blocks": 4}, "blocks"),
        ({"waiting_served_ratio": 9.0, "max_batch_prefill_tokens": 16}, "served_ratio"),
        ({"max_batch_prefill_tokens": 8}, "prefill"),
    ],
)
def test_the_waiting_wait_for(settings: dict[str, int], reason: str) -> None:
    house = started(**{"waiting_served_ratio": 0.0, **settings})  # type: ignore[arg-type]
    house.submit(1, 20, 10)
    house.submit(2, 20, 10)
    assert waiting(house) == {reason: 1}


def test_what_is_too_large_for_the_open_replica_waits_for_blocks() -> None:
    house = House(num_replicas=2, max_batch_size=1)
    house.hello()
    house.ready(11, replica=0)
    house.ready(21, replica=1)
    house.submit(1, 20, 300)
    house.submit(2, 20, 300)
    assert waiting(house) == {"blocks": 1}


def test_who_was_preempted_waits_for_its_growth_in_advance() -> None:
    house = started(blocks=10, waiting_served_ratio=0.0)
    house.submit(2, 64, 40)
    house.submit(1, 20, 100)  # 3 of 4 blocks; the next time it wants all
    preempt(house)
    assert house.record(ONE).state is State.QUEUED
    assert waiting(house) == {"blocks": 1}


def test_what_waits_behind_a_suspect() -> None:
    house = started(waiting_served_ratio=0.0)
    house.submit(1)
    house.report(house.token(ONE, 7))
    for attempt in (1, 2):
        house.ready(incarnation=20 + attempt)
        house.from_frontend(Submit(spec(1), attempt=attempt, generated_ids=[7]))
        house.turn()
    house.submit(2)
    assert waiting(house) == {"solitude": 1}


def test_the_use_of_the_cache() -> None:
    house = started(blocks=11)
    assert house.metric("millrace_kv_cache_usage") == 0.0
    house.submit(1, 20, 30)
    assert house.metric("millrace_kv_cache_usage") == pytest.approx(0.3)
    assert house.metric("millrace_running_sequences", replica="0") == 1
    labels = {"block_size": "16", "num_gpu_blocks": "10"}
    assert house.metric("millrace_cache_config_info", **labels) == 1
    lora = {"max_lora": "0", "running_lora_adapters": "", "waiting_lora_adapters": ""}
    assert house.metric("millrace_lora_requests_info", **lora) > 1e9


def test_restarts_by_process() -> None:
    house = started()
    house.from_frontend(Tally(restarts={"worker-0": 2, "scheduler": 1, 'odd "name"': 3}))
    house.from_frontend(Tally(restarts={"worker-0": 3}))
    house.from_frontend(FrontendGone(pid=100, is_replaced=True))
    house.from_frontend(FrontendGone(pid=999))
    house.turn()
    name = "millrace_process_restarts_total"
    assert house.metric(name, process="worker-0") == 3
    assert house.metric(name, process="scheduler") == 1
    assert house.metric(name, process="frontend") == 1
    assert b"odd" not in house.metrics.render()


def test_tokens_computed_for_nobody() -> None:
    house = started()
    house.submit(1)
    house.report(house.token(ONE, 7))
    late = house.token(ONE, 7, 7)
    house.from_frontend(Cancel(ONE, "stop_sequence"))
    house.turn()
    house.report(late, released=[ONE])
    assert house.metric("millrace_wasted_tokens_total") == 2
    assert house.ended() == {"stop_sequence": 1}


def test_many_observations_at_once() -> None:
    catalogue = Catalogue()
    tallied = catalogue.histogram("x", "meaning", (1, 2), "1, 2")
    tallied.add(0.5, 3)
    tallied.add(2)
    tallied.add(7, 2)
    read = catalogue.registry.get_sample_value
    assert [read("x_bucket", {"le": le}) for le in ("1.0", "2.0", "+Inf")] == [3, 4, 6]
    assert (read("x_count"), read("x_sum")) == (6, 17.5)


def test_the_worst_of_a_minute() -> None:
    worst = WorstOf()
    worst.see(3.0, 0.0)
    worst.see(2.0, 50.0)
    assert (worst.worst(50.0), worst.worst(64.0), worst.worst(200.0)) == (3.0, 2.0, 0.0)
    for second in range(0, 10_000, 5):
        worst.see(1.0, float(second))
    assert len(worst._slots) <= WorstOf.SLOTS + 1
