"""StepReports: tokens, ends and contradictions."""

import pytest
from msgspec.structs import replace

from common.messages import (
    BLOCK_TOKENS,
    Delivered,
    Ended,
    FrontendGone,
    Missing,
    Progress,
    Replay,
    Retire,
    SequenceTokens,
    Started,
    Steady,
    StepReport,
    StepReports,
    StepTiming,
)
from common.sockets import encode, worker_identity
from scheduler.endings import MOST_REPLAYS
from scheduler.requests import State
from tests.scheduler.harness import EPOCH, FRONTEND, TIMING, House, sequence_id, started
from worker.reports import in_columns


def finished(house: House) -> int:
    sequence = house.submit(1)
    house.run_to(sequence, 2)
    house.report(house.token(sequence, 8, finish="eos_token"))
    house.forget()
    return sequence


def test_a_finish_frees_blocks_at_once_and_keeps_the_record() -> None:
    house = started()
    sequence = finished(house)
    assert house.parts.replicas.get(0).leases.pool.leased == 0  # type: ignore[union-attr]
    record = house.record(sequence)
    assert (record.state, record.reason) == (State.FINISHED, "eos_token")
    assert house.parts.requests.live == 0
    house.from_frontend(Delivered(sequence, success=True))
    house.turn()
    assert len(house.parts.requests) == 0
    assert house.ended() == {"eos_token": 1}


def test_an_undelivered_record_is_replayed_with_growing_waits_and_then_dropped() -> None:
    house = started()
    finished(house)
    at = []
    began = house.clock.now
    for _ in range(800):
        house.hello()
        before = len(house.said(Replay))
        house.turn(after_s=0.1)
        if len(house.said(Replay)) > before:
            at.append(round(house.clock.now - began))
    assert at == [1, 3, 7, 15, 31]
    assert len(at) == MOST_REPLAYS
    assert [i for item in house.said(Replay)[-1].items for i in item.ids] == [7, 7, 8]
    assert len(house.parts.requests) == 0
    assert house.ended() == {"eos_token": 1}


def test_delivered_may_overtake_the_report() -> None:
    house = started()
    sequence = house.submit(1)
    house.from_frontend(Delivered(sequence, success=True, generated_tokens=1))
    house.turn()
    assert house.record(sequence).state is State.DISPATCHED
    house.report(house.token(sequence, 8, finish="length"))
    assert len(house.parts.requests) == 0
    assert house.ended() == {"length": 1}


def test_what_was_delivered_is_no_failure_when_its_front_end_dies() -> None:
    house = started()
    sequence = house.submit(1)
    house.from_frontend(Delivered(sequence, success=True, generated_tokens=1))
    house.from_frontend(FrontendGone(100))
    house.turn()
    house.report(house.token(sequence, 8, finish="length"))
    assert len(house.parts.requests) == 0
    assert house.metric("tgi_request_success_total") == 1
    assert house.metric("tgi_request_failure_total", err="dropped") == 0


def test_a_front_end_that_gave_up_stops_the_computation() -> None:
    house = started()
    sequence = house.submit(1)
    house.from_frontend(Delivered(sequence, success=False))
    house.turn()
    assert house.dispatches()[-1].release == [sequence]
    house.report(released=[sequence], timing=None)
    assert house.ended() == {"given_up": 1}


def test_a_failed_sequence_fails_alone() -> None:
    house = started(waiting_served_ratio=0.0)
    first, second = house.submit(1), house.submit(2)
    house.report(house.token(first, error="no"), house.token(second, 7))
    assert house.said(Ended) == [Ended(first, 0, "failed", "no")]
    assert house.record(second).generated == [7]
    assert house.metric("tgi_batch_inference_failure_total", method="decode") == 1
    assert house.ended() == {"failed": 1}
    house.check()


@pytest.mark.parametrize(("index", "finish"), [(1, ""), (5, ""), (5, "length")])
def test_a_worker_that_loses_count(index: int, finish: str) -> None:
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, 3)
    tokens = SequenceTokens(sequence, 0, index, [9], [0.0], finish=finish)  # type: ignore[arg-type]
    house.report(Progress(tokens, 24))
    assert [m.reason for m in house.said(Ended)] == ["failed"]
    if not finish:
        assert house.dispatches()[-1].release == [sequence]
        house.report(released=[sequence], timing=None)
    assert len(house.parts.requests) == 0
    house.check()


def test_several_tokens_in_a_step() -> None:
    house = started()
    sequence = house.submit(1)
    house.report(house.token(sequence, 1, 2, 3))
    house.report(house.token(sequence, 4))
    assert house.record(sequence).generated == [1, 2, 3, 4]
    text = house.metrics.render().decode()
    assert 'tgi_request_skipped_tokens_bucket{le="0.0"} 1.0' in text
    assert 'tgi_request_skipped_tokens_bucket{le="2.0"} 2.0' in text
    assert "tgi_request_skipped_tokens_sum 2.0" in text


@pytest.mark.parametrize("most", [1, 7])
def test_tokens_in_columns(most: int) -> None:
    """As many as a worker's steps give: none is lost, full blocks are findable, room is ahead."""
    house = started(waiting_served_ratio=0.0)
    replica = house.parts.replicas.get(0)
    assert replica is not None
    sequences = [house.submit(1, 40, 400), house.submit(2, 7, 400)]
    told: dict[int, list[int]] = {sequence: [] for sequence in sequences}
    for step in range(40):
        items = []
        for sequence in sequences:
            count = (step * 5 + sequence) % most + 1
            ids = [len(told[sequence]) + number for number in range(count)]
            told[sequence] += ids
            items.append(house.token(sequence, *ids))
        others, steady = in_columns(items)
        assert (others == []) == (steady is not None)
        house.report(*others, steady=steady)
        for sequence in sequences:
            record = house.record(sequence)
            assert record.generated == told[sequence]
            assert len(record.logprobs) == len(record.generated)
            lease = replica.leases.get(sequence)
            assert lease is not None
            assert lease.registered == (record.known_tokens - 1) // BLOCK_TOKENS
            assert lease.capacity >= record.known_tokens + BLOCK_TOKENS
    tokens = sum(len(ids) for ids in told.values())
    text = house.metrics.render().decode()
    assert f"tgi_request_skipped_tokens_sum {float(tokens - 80)}" in text
    assert "tgi_request_skipped_tokens_count 80.0" in text
    house.check()


@pytest.mark.parametrize("count", [1, 2])
def test_columns_that_contradict_what_is_known(count: int) -> None:
    """They are taken as what is said singly: of another attempt, of nobody, of another place."""
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, 2)
    counts = [] if count == 1 else [count]

    def steady(sequence: int, attempt: int, index: int) -> Steady:
        tokens, logprobs = [30] * count, [-0.5] * count
        return Steady([sequence], [attempt], [index], tokens, logprobs, [22 + count], counts)

    house.report(steady=steady(sequence, 1, 2))
    house.report(steady=steady(sequence_id(2), 0, 2))
    assert house.record(sequence).generated == [7, 7]
    assert house.metric("millrace_wasted_tokens_total") == 2 * count
    house.report(steady=steady(sequence, 0, 3))
    assert house.record(sequence).generated == [7, 7]
    assert house.ended() == {}
    assert [ended.reason for ended in house.said(Ended)] == ["failed"]


def test_the_facts_of_a_start_are_sent_again() -> None:
    house = started()
    sequence = house.submit(1)
    told = Started(0.5, cached_tokens=16)
    for index, fact in enumerate([told, None, Started(0.9)]):
        tokens = SequenceTokens(sequence, 0, index, [7], [-0.5], started=fact)
        house.report(Progress(tokens, 20 + index))
    house.from_frontend(Missing(sequence, 1))
    house.turn()
    ((item,),) = (replay.items for replay in house.said(Replay))
    assert (item.ids, item.started) == ([7, 7], told)


def test_drafts_are_counted() -> None:
    house = started()
    sequence = house.submit(1)
    timing = replace(TIMING, drafted_tokens=4, accepted_tokens=2)
    house.report(house.token(sequence, 1, 2, 3), timing=timing)
    assert house.metric("millrace_drafted_tokens_total") == 4
    assert house.metric("millrace_accepted_tokens_total") == 2


def test_prefill_without_tokens_counts_as_work_done() -> None:
    house = started(max_batch_prefill_tokens=16, waiting_served_ratio=0.0)
    sequence = house.submit(1, 100)
    replica = house.parts.replicas.get(0)
    assert replica is not None
    for computed, left in [(16, 84), (32, 68), (90, 10)]:
        house.report(Progress(SequenceTokens(sequence, 0, 0), computed))
        assert replica.backlog_tokens == left
    house.report(house.token(sequence, 7))
    assert replica.backlog_tokens == 0
    assert house.record(sequence).generated == [7]


def test_undelivered_tokens_are_replayed_to_whom_they_belong() -> None:
    house = started(frontends=2, waiting_served_ratio=0.0)
    other = FRONTEND + 1
    mine, theirs = house.submit(1), house.submit(1, frontend=other)
    started_fact = Started(0.1)
    items = [
        Progress(SequenceTokens(s, 0, 0, [7], [0.0], started=started_fact), 20)
        for s in (mine, theirs)
    ]
    house.report(*items, undelivered=[other])
    assert house.said(Replay) == []
    (replay,) = house.said(Replay, other)
    assert [(item.id, item.ids) for item in replay.items] == [(theirs, [7])]
    house.report(house.token(mine, 7), undelivered=[other])
    assert len(house.said(Replay, other)) == 1
    house.report(house.token(theirs, finish="length"), undelivered=[other])  # an end alone
    assert [item.finish for item in house.said(Replay, other)[1].items] == ["length"]


def test_what_was_computed_before_a_release_counts() -> None:
    house = started(waiting_served_ratio=0.0)
    longer, over = house.submit(1), house.submit(2)
    house.from_frontend(Retire(5, 0), 77)
    house.turn()
    items = [house.token(longer, 7), house.token(over, 8, finish="length")]
    house.report(*items, released=[longer, over])
    assert (house.record(longer).state, house.record(longer).generated) == (State.QUEUED, [7])
    assert house.record(over).state is State.FINISHED


def test_reports_about_unknown_sequences_waste_tokens() -> None:
    house = started()
    house.report(Progress(SequenceTokens(sequence_id(9), 0, 0, [1, 2], [0.0, 0.0]), 5))
    assert house.metric("millrace_wasted_tokens_total") == 2


@pytest.mark.parametrize(
    ("prefill", "decode", "method"),
    [(10, 0, "prefill"), (10, 5, "prefill"), (0, 5, "decode")],
)
def test_step_timings_by_method(prefill: int, decode: int, method: str) -> None:
    house = started()
    house.report(timing=StepTiming(prefill, decode, 0.004, 0.001, 0.0005, 0.006))
    for name, value in [
        ("tgi_batch_inference_duration", 0.006),
        ("tgi_batch_forward_duration", 0.004),
        ("tgi_batch_decode_duration", 0.001),
        ("tgi_batch_filter_duration", 0.0005),
    ]:
        assert house.metric(f"{name}_sum", method=method) == value
        assert house.metric(f"{name}_count", method=method) == 1
    assert house.metric("tgi_batch_inference_count_total", method=method) == 1
    assert house.metric("tgi_batch_inference_success_total", method=method) == 1


def test_reports_that_were_kept_back_come_before_the_one_that_brings_them() -> None:
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, 2)
    record = house.record(sequence)

    def kept_back(step: int, index: int, token: int) -> StepReport:
        steady = Steady([sequence], [record.attempt], [index], [token], [-0.5], [100 + index])
        return StepReport(EPOCH, house.incarnations[0], 1, step, steady=steady)

    end = SequenceTokens(sequence, record.attempt, 4, [32], [-0.5], finish="length")
    last = StepReport(EPOCH, house.incarnations[0], 1, 5, [Progress(end, 104)])
    reports = [kept_back(3, 2, 30), kept_back(4, 3, 31), last]
    incarnation = house.incarnations[0]
    house.link.worker_inbox.append(
        (worker_identity(0, incarnation), encode(StepReports(EPOCH, incarnation, reports)))
    )
    house.turn()
    assert record.generated == [7, 7, 30, 31, 32]
    assert record.state is State.FINISHED
