"""Each token exactly once and in order, whatever the wires do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from common.errors import ErrorKind, RequestError
from common.messages import SequenceSpec, SequenceTokens, Started
from common.sampling import SamplingParameters
from frontend.mailbox import Mailbox

LENGTH = 24
SPEC = SequenceSpec(id=1, prompt_ids=[1], max_new_tokens=LENGTH, sampling=SamplingParameters())


def item(index: int, count: int, *, finish: str = "", attempt: int = 0, tops: bool = False):
    ids = list(range(100 + index, 100 + index + count))
    return SequenceTokens(
        id=1,
        attempt=attempt,
        index=index,
        ids=ids,
        logprobs=[-float(i) for i in ids],
        tops=[[(i, -1.0)] for i in ids] if tops else [],
        finish=finish,
    )


def mailbox(eager: bool = True) -> tuple[Mailbox, list[int]]:
    woken: list[int] = []
    return Mailbox(SPEC, lambda: woken.append(1), eager=eager), woken


def taken(box: Mailbox) -> list[int]:
    return [token for part in box.take() for token in part.ids]


@st.composite
def deliveries(draw: st.DrawFn) -> list[SequenceTokens]:
    """Pieces of one sequence: any cut, any order, any repetition, all tokens at least once."""
    spans = draw(
        st.lists(st.tuples(st.integers(0, LENGTH - 1), st.integers(1, 6)), min_size=0, max_size=40)
    )
    covering = [(i, 1) for i in range(LENGTH)]
    pieces = [(first, min(count, LENGTH - first)) for first, count in [*spans, *covering]]
    shuffled = draw(st.permutations(pieces))
    tops = draw(st.booleans())
    return [
        item(first, count, finish="length" if first + count == LENGTH else "", tops=tops)
        for first, count in shuffled
    ]


@given(deliveries())
def test_any_order_and_repetition_gives_each_token_once(pieces: list[SequenceTokens]) -> None:
    box, _ = mailbox()
    got: list[int] = []
    for piece in pieces:
        box.put(piece)
        parts = box.take()
        for part in parts:
            assert len(part.ids) == len(part.logprobs)
            assert part.logprobs == [-float(i) for i in part.ids]
            assert not part.tops or [t[0][0] for t in part.tops] == part.ids
        got += [token for part in parts for token in part.ids]
        assert got == box.ids
        assert got == list(range(100, 100 + len(got)))
    assert got == list(range(100, 100 + LENGTH))
    assert box.finish == "length"
    assert box.missing is None


def test_gap_is_held_and_named() -> None:
    box, woken = mailbox()
    assert box.put(item(0, 2))
    assert not box.put(item(4, 2, finish="length"))
    assert box.missing == 2
    assert taken(box) == [100, 101]
    assert not box.over
    assert box.put(item(2, 2))
    assert taken(box) == [102, 103, 104, 105]
    assert box.missing is None
    assert box.finish == "length"
    assert len(woken) == 2


def test_the_finish_may_come_with_a_duplicate() -> None:
    box, _ = mailbox()
    box.put(item(0, 2))
    assert box.put(item(0, 2, finish="eos_token"))
    parts = box.take()
    assert [part.ids for part in parts] == [[100, 101], []]
    assert box.finish == "eos_token"


def test_stale_attempts_are_dropped() -> None:
    box, _ = mailbox()
    box.put(item(0, 1))
    box.put(item(3, 1))
    assert box.restart() == 1
    assert box.missing is None
    assert not box.put(item(1, 1))
    assert box.put(item(1, 1, attempt=1))
    assert taken(box) == [100, 101]


def test_nothing_after_the_end() -> None:
    box, _ = mailbox()
    box.put(item(0, 1, finish="eos_token"))
    assert not box.put(item(1, 1))
    box.fail(RequestError(ErrorKind.GENERATION, "too late"))
    assert box.failure is None


def test_started_is_kept_from_the_first_that_has_it() -> None:
    box, _ = mailbox()
    first, second = item(0, 1), item(1, 1)
    box.put(first)
    box.put(replace(first, started=Started(0.5)))
    box.put(replace(second, started=Started(0.9)))
    assert box.started == Started(0.5)
    assert taken(box) == [100, 101]


@pytest.mark.parametrize(
    "bad",
    [
        SequenceTokens(id=1, attempt=0, index=0, ids=[1, 2], logprobs=[-1.0]),
        SequenceTokens(id=1, attempt=0, index=0, ids=[1], logprobs=[-1.0], tops=[[], []]),
        SequenceTokens(id=1, attempt=0, index=-1, ids=[1], logprobs=[-1.0]),
        SequenceTokens(id=1, attempt=0, index=LENGTH, ids=[1], logprobs=[-1.0]),
    ],
)
def test_malformed_items_are_dropped(bad: SequenceTokens) -> None:
    box, woken = mailbox()
    assert not box.put(bad)
    assert box.missing is None
    assert not woken


def test_lazy_mailboxes_wake_at_acceptance_and_end_only() -> None:
    box, woken = mailbox(eager=False)
    box.accept()
    for i in range(5):
        box.put(item(i, 1))
    assert len(woken) == 1
    box.put(item(5, 1, finish="length"))
    assert len(woken) == 2


def test_tokens_imply_acceptance() -> None:
    box, woken = mailbox(eager=False)
    box.put(item(0, 1))
    assert box.accepted
    assert len(woken) == 1


def test_only_the_next_token_is_passed_on_and_only_if_it_is_taken() -> None:
    taken: list[int] = []
    takes = True
    made = Mailbox(SPEC, lambda: None, eager=True, keeps=True)
    assert not made.pass_on(0, 0, 7, -0.5), "nobody has asked for it"

    def take(token: int, logprob: float) -> bool:
        if takes:
            taken.append(token)
        return takes

    made.forward(take)
    assert made.pass_on(0, 0, 7, -0.5)
    assert made.accepted
    assert not made.pass_on(0, 0, 7, -0.5), "a duplicate"
    assert not made.pass_on(0, 2, 9, -0.5), "a gap"
    assert not made.pass_on(1, 1, 8, -0.5), "another attempt"
    takes = False
    assert not made.pass_on(0, 1, 8, -0.5)
    takes = True
    made.put(SequenceTokens(SPEC.id, 0, 1, [8], [-0.5]))
    assert not made.pass_on(0, 2, 9, -0.5), "one before it has not been taken"
    made.take()
    assert made.pass_on(0, 2, 9, -0.25)
    made.put(SequenceTokens(SPEC.id, 0, 4, [11], [-0.5]))
    assert not made.pass_on(0, 3, 10, -0.5), "what is held follows it"
    made.put(SequenceTokens(SPEC.id, 0, 3, [10], [-0.5], finish="length"))
    assert not made.pass_on(0, 4, 11, -0.5), "it is over"
    assert taken == [7, 9]
    assert made.ids == [7, 8, 9, 10]
    assert made.logprobs == [-0.5, -0.5, -0.25, -0.5]
