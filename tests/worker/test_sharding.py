"""Which part of what each shard has."""

import pytest

from worker.sharding import WHOLE, Cut, Sharding, Units, refusal


def parts(units: Units, size: int) -> list[tuple[int, int]]:
    return [Sharding(rank, size).span(units) for rank in range(size)]


def test_units_are_dealt_out_in_order() -> None:
    assert parts(Units(4, 10), 2) == [(0, 20), (20, 40)]
    assert parts(Units(6), 3) == [(0, 2), (2, 4), (4, 6)]
    assert WHOLE.span(Units(4, 10)) == (0, 40)


def test_fewer_units_than_shards_are_had_by_several() -> None:
    assert parts(Units(2, 8), 4) == [(0, 8), (0, 8), (8, 16), (8, 16)]
    assert Sharding(0, 4).copies(Units(2)) == 2
    assert Sharding(0, 4).copies(Units(8)) == 1


@pytest.mark.parametrize(
    ("heads", "kv_heads", "size"), [(8, 4, 2), (8, 2, 4), (8, 1, 8), (12, 4, 4)]
)
def test_query_heads_are_where_their_keys_are(heads: int, kv_heads: int, size: int) -> None:
    for rank in range(size):
        sharding = Sharding(rank, size)
        first, last = sharding.span(Units(heads))
        group = heads // kv_heads
        start, stop = sharding.span(Units(kv_heads))
        assert {head // group for head in range(first, last)} == set(range(start, stop))


def test_a_tensor_of_several_parts_is_cut_in_each() -> None:
    cut = Sharding(1, 2).cut(0, Units(4, 2), Units(2, 2), Units(2, 2))
    assert cut == Cut(0, ((4, 8), (10, 12), (14, 16)))
    assert cut.size == 8
    assert WHOLE.cut(0, Units(4)) is None


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_a_vocabulary_of_any_size_is_dealt_out_once(count: int) -> None:
    ends = [Sharding(rank, 4).entries(count) for rank in range(4)]
    assert [entry for start, stop in ends for entry in range(start, stop)] == list(range(count))


@pytest.mark.parametrize(
    ("shards", "heads", "kv_heads", "width", "words"),
    [
        (1, 7, 7, 11, ""),
        (2, 8, 2, 12, ""),
        (4, 8, 2, 12, ""),
        (3, 8, 2, 12, "--num-shard may be 2, 4"),
        (8, 8, 2, 12, "width of 12"),
        (2, 9, 3, 12, "9 attention heads, 3 key-value heads"),
        (2, 7, 7, 12, "it runs with --num-shard 1 only"),
        (4, 12, 6, 12, "may be 2, 3, 6, 12"),
    ],
)
def test_what_cannot_be_cut_is_said(
    shards: int, heads: int, kv_heads: int, width: int, words: str
) -> None:
    sentence = refusal(shards, heads=heads, kv_heads=kv_heads, widths={"width": width})
    assert words in sentence
    assert bool(sentence) is bool(words)
