"""When sequences are admitted, and where: each rule with a fake worker and an injected clock."""

from typing import Any

import msgspec
import pytest

from common.messages import Cancel, Ended, Progress, SequenceTokens
from tests.scheduler.harness import TIMING, House, sequence_id, spec, started

LONG = 300
"""Prompt tokens that fill more than one step of the harness."""


def waiting_and_running(running: int, **changes: Any) -> House:
    """Replica 0 runs so many sequences, the last of which still reads its prompt; nobody waits."""
    house = started(blocks=1001, max_waiting_tokens=4, **changes)
    for counter in range(1, running):
        house.submit(counter)
    house.report(*(house.token(sequence_id(c), 7) for c in range(1, running)))
    house.submit(running, LONG)
    assert len(house.added()) == running
    house.forget()
    return house


def test_an_idle_replica_admits_at_once() -> None:
    house = started()
    sequence = house.submit(1)
    assert house.added() == [sequence]
    assert house.metric("tgi_batch_concat_total", reason="backpressure") == 0
    assert house.metric("tgi_batch_next_size_count") == 1


@pytest.mark.parametrize(
    ("ratio", "running", "needed"),
    [(0.3, 1, 1), (0.3, 4, 1), (0.3, 7, 2), (1.2, 5, 6), (0.0, 5, 1), (0.5, 10, 5)],
)
def test_waiting_served_ratio(ratio: float, running: int, needed: int) -> None:
    house = waiting_and_running(running, waiting_served_ratio=ratio)
    for counter in range(100, 100 + needed):
        assert house.added() == []
        house.submit(counter)
    assert len(house.added()) == needed
    assert len(house.dispatches()) == 1
    assert house.metric("tgi_batch_concat_total", reason="backpressure") >= 1


def test_max_waiting_tokens() -> None:
    house = waiting_and_running(8, waiting_served_ratio=2.0)
    running = [sequence_id(c) for c in range(1, 8)]
    house.submit(100)
    reading = msgspec.structs.replace(TIMING, decode_tokens=0)
    for _ in range(5):
        house.report(timing=reading)
    assert house.added() == []
    steps = 0
    while not house.added():
        house.report(*(house.token(s, 7) for s in running))
        steps += 1
    assert steps == 4
    assert house.metric("tgi_batch_concat_total", reason="wait_exceeded") >= 1
    house.submit(101)
    assert len(house.added()) == 1  # the count begins anew


def test_a_newcomer_is_let_in_while_the_step_has_room() -> None:
    house = waiting_and_running(8, waiting_served_ratio=2.0)
    house.submit(100)
    assert house.added() == []
    reader = house.record(sequence_id(8))
    tokens = SequenceTokens(reader.id, reader.attempt, 0)
    house.report(Progress(tokens, 44))  # as many are left as a step has
    assert house.added() == []
    house.report(Progress(tokens, 45))
    assert house.added() == [sequence_id(100)]


@pytest.mark.parametrize("size", [1, 3])
def test_max_batch_size(size: int) -> None:
    house = started(blocks=1001, max_batch_size=size, waiting_served_ratio=0.0)
    for counter in range(1, 6):
        house.submit(counter)
    assert len(house.added()) == size
    house.report(house.token(sequence_id(1), 7, finish="eos_token"))
    assert house.added() == [sequence_id(c) for c in range(1, size + 2)]


@pytest.mark.parametrize(
    ("prompt", "new", "blocks"),
    [(1, 1, 1), (16, 40, 2), (17, 40, 3), (20, 4, 2), (31, 1, 2), (32, 1, 3), (32, 400, 3)],
)
def test_lease_at_admission(prompt: int, new: int, blocks: int) -> None:
    """Known tokens plus one block of growth, but never more than can be used."""
    house = started()
    house.submit(1, prompt, new)
    (added,) = house.dispatches()[0].add
    assert len(added.blocks) == blocks
    assert 0 not in added.blocks


def test_the_watermark_is_left_to_running_sequences() -> None:
    house = started(blocks=13, waiting_served_ratio=0.0)  # 12 to lease
    house.submit(1, 64, 100)  # 5
    house.submit(2, 64, 100)  # 5, which leaves 2
    house.submit(3, 16, 1)  # 2 would leave nothing
    assert house.added() == [sequence_id(1), sequence_id(2)]
    house.submit(4, 1, 1)  # 1 would fit, but the head of the line comes first
    assert house.added() == [sequence_id(1), sequence_id(2)]


@pytest.mark.parametrize(("blocks", "running", "left"), [(20, 1, 1), (20, 6, 3), (300, 6, 6)])
def test_the_watermark_grows_with_blocks_and_sequences(
    blocks: int, running: int, left: int
) -> None:
    house = started(
        blocks=blocks + 1, max_batch_prefill_tokens=8192, waiting_served_ratio=0.0
    )  # fmt: skip
    for counter in range(running):
        house.submit(counter, 1, 1)
    most = 16 * (blocks - running - left)
    house.submit(100, most, 1)
    assert len(house.added()) == running
    house.from_frontend(Cancel(sequence_id(100), "client_gone"))
    house.submit(101, most - 1, 1)
    assert len(house.added()) == running + 1


def test_who_has_run_before_needs_no_reason() -> None:
    house = waiting_and_running(8, waiting_served_ratio=2.0)
    house.submit(100)
    assert house.added() == []
    resumed = house.submit(101, attempt=1, generated_ids=[7])
    assert house.added() == [resumed]


def test_the_head_of_the_line_blocks_the_others_until_it_fits() -> None:
    house = started(blocks=13, waiting_served_ratio=0.0)
    house.submit(1, 64, 100)
    house.submit(2, 100, 20)  # 8 of 7
    house.submit(3, 1, 1)
    assert house.added() == [sequence_id(1)]
    house.submit(4, 1, 1, priority=-1)  # of better priority: is not blocked
    assert house.added() == [sequence_id(1), sequence_id(4)]
    house.report(house.token(sequence_id(1), 7, finish="eos_token"))
    assert house.added() == [sequence_id(c) for c in (1, 4, 2, 3)]


def test_a_cancelled_head_blocks_nobody() -> None:
    house = started(blocks=13, waiting_served_ratio=0.0)
    house.submit(1, 64, 100)
    house.submit(2, 100, 20)
    house.submit(3, 1, 1)
    house.from_frontend(Cancel(sequence_id(2), "client_gone"))
    house.turn()
    assert house.added() == [sequence_id(1), sequence_id(3)]


def test_prefill_work_is_bounded() -> None:
    house = started(blocks=1001, max_batch_prefill_tokens=64, waiting_served_ratio=0.0)
    for counter, prompt in enumerate([500, 64, 64, 64, 64], start=1):
        house.submit(counter, prompt)
    assert house.added() == [sequence_id(1)]  # one always may
    house.report(house.token(sequence_id(1), 7))
    assert len(house.added()) == 3  # 2 steps hold two
    house.report(house.token(sequence_id(2), 7))
    assert len(house.added()) == 4
    house.check()


def test_what_is_cached_is_no_prefill_work() -> None:
    house = started(blocks=1001, max_batch_prefill_tokens=64, waiting_served_ratio=0.0)
    ids = list(range(160))
    first = house.submit(1, ids)
    house.report(house.token(first, 7))
    house.submit(2, 100)
    third = house.submit(3, ids)  # 16 of it are left to be read
    assert house.added()[2:] == [third]


def test_what_can_never_fit_fails_with_a_sentence() -> None:
    house = started(blocks=11)
    sequence = house.submit(1, 100, 61)
    (ended,) = house.said(Ended)
    assert (ended.id, ended.reason) == (sequence, "failed")
    assert "176 tokens" in ended.message
    assert "160" in ended.message
    house.submit(2, 150, 10)  # all blocks, at once
    assert house.added() == [sequence_id(2)]
    assert house.ended() == {"failed": 1}


def test_nothing_is_judged_before_a_replica_is_ready() -> None:
    house = House()
    house.hello()
    house.submit(1, 100, 100_000)
    assert house.said(Ended) == []
    house.ready(11)
    assert len(house.said(Ended)) == 1


def test_max_batch_total_tokens_bounds_the_pool() -> None:
    house = started(blocks=1001, max_batch_total_tokens=100)
    assert house.metric("tgi_batch_max_total_tokens") == 112
    house = started(blocks=5, max_batch_total_tokens=100)
    assert house.metric("tgi_batch_max_total_tokens") == 64


def test_expired_entries_cost_no_prefill() -> None:
    house = started(max_batch_size=1)
    house.submit(1)
    late = house.submit(2, timeout_s=0.4)
    assert house.next_wait() == pytest.approx(0.4)
    house.turn(after_s=0.4)
    (ended,) = house.said(Ended)
    assert (ended.id, ended.reason) == (late, "expired")
    house.report(house.token(sequence_id(1), 7, finish="eos_token"))
    assert house.added() == [sequence_id(1)]
    assert house.ended() == {"expired": 1}


def test_queue_seconds_travel_with_the_sequence() -> None:
    house = started(max_batch_size=1)
    house.submit(1)
    house.submit(2)
    house.clock.now += 2.5
    house.report(house.token(sequence_id(1), 7, finish="eos_token"))
    assert [new.queue_s for d in house.dispatches() for new in d.add] == [0.0, 2.5]


# --- replicas ---------------------------------------------------------------------------------


def test_least_leased_replica() -> None:
    """Blocks: 8 and 5, then 2 for each."""
    house = started(replicas=3, waiting_served_ratio=0.0)
    for counter, prompt in enumerate([100, 50, 10, 10, 10, 10], start=1):
        house.submit(counter, prompt)
    assert [house.added(r) for r in range(3)] == [
        [sequence_id(1)],
        [sequence_id(2), sequence_id(6)],
        [sequence_id(c) for c in (3, 4, 5)],
    ]


def test_longest_cached_prefix_before_least_leased() -> None:
    house = started(replicas=2, waiting_served_ratio=0.0, blocks=1001)
    prompt = list(range(100))
    house.submit(1, prompt)
    house.submit(2, 10)
    home = 0 if house.added(0) == [sequence_id(1)] else 1
    house.report(house.token(sequence_id(1), 7), replica=home)
    house.submit(3, prompt)
    (new,) = [n for n in house.dispatches(home)[-1].add if n.spec.id == sequence_id(3)]
    assert new.cached_tokens == 96
    assert house.metric("millrace_prefix_hit_tokens_total") == 96


def test_an_idle_replica_admits_while_the_other_waits() -> None:
    house = started(replicas=2, waiting_served_ratio=5.0)
    house.submit(1, LONG)
    house.submit(2, LONG)
    house.submit(3)
    assert (house.added(0), house.added(1)) == ([sequence_id(1)], [sequence_id(2)])


def test_a_sequence_goes_only_where_it_can_run_to_its_end() -> None:
    house = House(num_replicas=2, waiting_served_ratio=0.0)
    house.hello()
    house.ready(11, replica=0)
    house.ready(21, replica=1)
    house.submit(1, 20, 300)  # 20 blocks, and for a start 3
    house.submit(2, 20, 140)  # 10
    house.submit(3, 20, 141)  # 11, though replica 0 leases less
    assert house.added(0) == [sequence_id(2)]
    assert house.added(1) == [sequence_id(1), sequence_id(3)]


# --- prefix cache -----------------------------------------------------------------------------


def second_of(house: House, **more: object) -> int:
    """Run a prompt of 40 and 30 generated tokens to its end, hand it in again with them."""
    ids = list(range(40))
    sequence = house.submit(1, ids, 30)
    first = house.dispatches()[0].add[0]
    assert first.cached_tokens == 0
    house.run_to(sequence, 29)
    house.report(house.token(sequence, 7, finish="length"))
    house.forget()
    house.submit(2, ids + [7] * 30, 10, **more)
    return house.dispatches()[0].add[0].cached_tokens


@pytest.mark.parametrize(
    ("settings", "more", "cached"),
    [
        ({}, {}, 64),  # 69 of 70 are computed: 4 blocks, generated tokens too
        ({"prefix_caching": False}, {}, 0),
        ({}, {"cache_salt": "other"}, 0),
        ({}, {"prefill_logprobs": True}, 0),
    ],
)
def test_prefix_cache(settings: dict[str, object], more: dict[str, object], cached: int) -> None:
    house = started(**settings)  # type: ignore[arg-type]
    assert second_of(house, **more) == cached


def test_a_worker_whose_model_shares_no_prefixes() -> None:
    house = started(replicas=0)
    house.ready(prefix_caching=False)
    assert second_of(house) == 0


def test_unconfirmed_blocks_are_not_shared() -> None:
    house = started(waiting_served_ratio=0.0)
    ids = list(range(60))
    house.submit(1, ids)
    house.submit(2, ids)
    assert [new.cached_tokens for d in house.dispatches() for new in d.add] == [0, 0]
    held = [set(new.blocks) for d in house.dispatches() for new in d.add]
    assert not held[0] & held[1]
    assert spec(1, ids).prompt_ids == ids


def test_room_is_what_a_step_may_read_beside_others() -> None:
    house = started(
        blocks=1001, max_batch_prefill_tokens=4096, max_stall_ms=150,
        waiting_served_ratio=5.0, max_waiting_tokens=1000,
    )  # fmt: skip
    house.submit(1)
    assert house.dispatches()[-1].max_stall_s == 0.15
    slow, quick = (msgspec.structs.replace(TIMING, piece_tokens=count) for count in (64, 0))
    house.report(house.token(sequence_id(1), 7), timing=slow)
    house.forget()
    house.submit(2, 3000)
    waiting = house.submit(3)
    assert house.added() == [sequence_id(2)]
    house.report(house.token(sequence_id(1), 7), timing=quick)
    assert house.added() == [sequence_id(2), waiting]
