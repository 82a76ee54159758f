"""Every message survives the wire, and nothing else is one."""

import types
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common import messages
from common.messages import (
    FromFrontend,
    FromWorker,
    NextTokens,
    SequenceSpec,
    Steady,
    StepReport,
    ToFrontend,
    Tokens,
    ToWorker,
    frontend_of,
    topic_of,
)
from common.sampling import SamplingParameters
from common.sockets import (
    FROM_FRONTEND,
    FROM_WORKER,
    SPANS,
    TO_FRONTEND,
    TO_WORKER,
    TOKENS,
    BadFrameError,
    Codec,
    encode,
)
from common.spans import Spans

DIRECTIONS: list[tuple[Codec[typing.Any], typing.Any]] = [
    (FROM_FRONTEND, FromFrontend),
    (TO_FRONTEND, ToFrontend),
    (FROM_WORKER, FromWorker),
    (TO_WORKER, ToWorker),
    (TOKENS, Tokens),
    (SPANS, Spans),
]


def kinds(direction: typing.Any) -> tuple[type, ...]:
    return typing.get_args(direction) or (direction,)


EVERY = [(codec, kind) for codec, direction in DIRECTIONS for kind in kinds(direction)]

NUMBERS = st.integers(0, 2**63 - 1)
FLOATS = st.floats(allow_nan=False)


COLUMNS: dict[type, list[typing.Any]] = {
    Steady: [NUMBERS, NUMBERS, NUMBERS, NUMBERS, FLOATS, NUMBERS],
    NextTokens: [NUMBERS, NUMBERS, NUMBERS, NUMBERS, FLOATS],
}


def built(kind: typing.Any) -> st.SearchStrategy[typing.Any]:
    """Any instance of a message, its parts built the same way."""
    if kind in COLUMNS:
        row = st.tuples(*COLUMNS[kind])
        return st.lists(row, max_size=3).map(lambda rows: kind(*zip_lists(rows, COLUMNS[kind])))
    hints = typing.get_type_hints(kind)
    fields = {name: typed(hints[name]) for name in kind.__struct_fields__}
    return st.builds(kind, **fields)


def zip_lists(
    rows: list[tuple[typing.Any, ...]], columns: list[typing.Any]
) -> list[list[typing.Any]]:
    """The columns of rows that may be none."""
    return [[row[number] for row in rows] for number in range(len(columns))]


def typed(hint: typing.Any) -> st.SearchStrategy[typing.Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return st.deferred(lambda: built(hint))
    if hint in (int, float):
        return NUMBERS if hint is int else FLOATS
    if origin is list:
        return st.lists(typed(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(*map(typed, arguments), max_size=3)
    if origin is tuple:
        return st.tuples(*map(typed, arguments))
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(typed, arguments))
    return st.from_type(hint)


@pytest.mark.parametrize(("codec", "kind"), EVERY, ids=[kind.__name__ for _, kind in EVERY])
def test_round_trip(codec: Codec[typing.Any], kind: type) -> None:
    @given(built(kind))
    @hypothesis_settings(max_examples=15)
    def survives(message: typing.Any) -> None:
        got = codec.decode(encode(message))
        assert type(got) is kind
        assert got == message

    survives()


@pytest.mark.parametrize(("codec", "direction"), DIRECTIONS)
def test_messages_of_other_directions_are_bad_frames(
    codec: Codec[typing.Any], direction: typing.Any
) -> None:
    for kind in {kind for _, kind in EVERY} - set(kinds(direction)):
        fields = [f for f in msgspec.structs.fields(kind) if f.required]
        values: dict[str, typing.Any] = {
            f.name: [] if typing.get_origin(f.type) is list else 1 for f in fields
        }
        with pytest.raises(BadFrameError):
            codec.decode(encode(kind(**values)))


@given(st.binary(max_size=200))
@hypothesis_settings(max_examples=150)
def test_garbage_is_a_bad_frame(frame: bytes) -> None:
    for codec, direction in DIRECTIONS:
        try:
            got = codec.decode(frame)
        except BadFrameError:
            continue
        assert isinstance(got, kinds(direction))


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xc1", b"\x90", b"\x91\xa5Hello", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff",
     b"\x93\xa9Heartbeat\x01", b"GET / HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_typical_garbage(frame: bytes) -> None:
    for codec, _ in DIRECTIONS:
        with pytest.raises(BadFrameError):
            codec.decode(frame)


@given(built(messages.StepReport), st.data())
@hypothesis_settings(max_examples=50)
def test_cut_frames_are_bad(message: messages.StepReport, data: st.DataObject) -> None:
    frame = encode(message)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(BadFrameError):
        FROM_WORKER.decode(frame[:cut])


def test_appended_fields_are_ignored_by_older_readers() -> None:
    raw = msgspec.msgpack.decode(encode(messages.Alive(5)))
    assert FROM_FRONTEND.decode(msgspec.msgpack.encode([*raw, "new"])) == messages.Alive(5)


def test_defaults_need_not_be_sent() -> None:
    assert FROM_FRONTEND.decode(msgspec.msgpack.encode(["Tally"])) == messages.Tally()


def test_messages_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        messages.Alive(5).frontend = 6  # type: ignore[misc]


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1))
def test_ids_and_topics(frontend: int, counter: int) -> None:
    assert frontend_of(frontend << 32 | counter) == frontend
    assert len(topic_of(frontend)) == 4
    assert int.from_bytes(topic_of(frontend), "big") == frontend


def test_numbers_keep_their_width() -> None:
    spec = SequenceSpec(2**63 - 1, [0, 2**31], 1, SamplingParameters(seed=2**64 - 1))
    submit = messages.Submit(spec)
    assert FROM_FRONTEND.decode(encode(submit)) == submit


def test_every_message_and_field_is_documented() -> None:
    for _, kind in EVERY:
        assert kind.__doc__


@given(data=st.data(), flips=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4))
def test_damaged_frames_never_raise_anything_else(
    data: st.DataObject, flips: list[tuple[int, int]]
) -> None:
    codec, kind = data.draw(st.sampled_from(EVERY))
    frame = bytearray(encode(data.draw(built(kind))))
    for place, value in flips:
        frame[place % len(frame)] = value
    try:
        codec.decode(bytes(frame))
    except BadFrameError:
        return


def test_a_frame_nested_without_end_is_bad() -> None:
    frame = encode(messages.Alive(3))
    deep = bytes([frame[0] + 1]) + frame[1:] + b"\x91" * 10_000 + b"\x90"  # one field more
    with pytest.raises(BadFrameError, match="recursion"):
        FROM_FRONTEND.decode(deep)


@pytest.mark.parametrize("codec", [codec for codec, _ in DIRECTIONS])
def test_text_that_is_not_unicode_is_a_bad_frame(codec: Codec[typing.Any]) -> None:
    with pytest.raises(BadFrameError):
        codec.decode(b"\x91\xa1\xff")


def test_columns_of_several_lengths_do_not_decode() -> None:
    frame = encode(StepReport(1, 2, 3, 4, steady=Steady([5], [0], [0], [6], [-0.5], [9])))
    assert FROM_WORKER.decode(frame)
    fields = msgspec.msgpack.decode(frame)
    fields[-1][2] = []
    with pytest.raises(BadFrameError):
        FROM_WORKER.decode(msgspec.msgpack.encode(fields))
    frame = encode(Tokens(1, 2, [], NextTokens([5], [0], [0], [6], [-0.5])))
    assert TOKENS.decode(frame)
    fields = msgspec.msgpack.decode(frame)
    fields[-1][2] = []
    with pytest.raises(BadFrameError):
        TOKENS.decode(msgspec.msgpack.encode(fields))


@pytest.mark.parametrize(
    ("counts", "fine"),
    [([2, 1], True), ([], False), ([3], False), ([2, 2], False), ([3, 0], False), ([4, -1], False)],
)
def test_columns_of_several_tokens(counts: list[int], fine: bool) -> None:
    frame = [[5, 6], [0, 0], [0, 3], [6, 7, 8], [-0.5] * 3, [9, 9], counts]
    if fine:
        assert msgspec.convert(frame, Steady).counts == counts
        return
    with pytest.raises(msgspec.ValidationError, match="lengths"):
        msgspec.convert(frame, Steady)
