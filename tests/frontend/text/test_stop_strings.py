import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.text.stop_strings import StopStrings

SMALL = st.text("ab\nc", min_size=1, max_size=5)


def naive(stops, text):
    """(start, end) of the match with the earliest end, the longest one there; or None."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if ending:
            return end - max(map(len, ending)), end
    return None


def naive_pending(stops, text):
    """The longest end of the text that begins a stop string."""
    sizes = range(min(len(text), max(map(len, stops), default=0)), 0, -1)
    return next((n for n in sizes if any(s.startswith(text[-n:]) for s in stops)), 0)


@given(stops=st.lists(SMALL, max_size=4), pieces=st.lists(st.text("ab\nc", max_size=6)))
def test_equals_the_naive_search_after_every_piece(stops, pieces):
    search, text, released = StopStrings(stops), "", 0
    for piece in pieces:
        found = search.push(piece)
        text += piece
        expected = naive(stops, text)
        if expected is None:
            assert found is None
            assert search.match_start is None
            assert search.pending == naive_pending(stops, text)
            assert len(text) - search.pending >= released  # what was let go stays let go
            released = len(text) - search.pending
        else:
            assert (search.match_start, found) == expected
            assert search.match_end == found
            assert search.pending == 0
            assert search.match_start >= released


@given(
    stops=st.lists(SMALL, max_size=4),
    passed=st.text("ab\nc", max_size=8),
    text=st.text("ab\nc", max_size=8),
)
def test_what_does_not_count_may_begin_a_match_but_not_end_it(stops, passed, text):
    search = StopStrings(stops)
    assert search.push(passed, counts=False) is None
    assert search.push(text) == next(
        (
            len(passed) + end
            for end in range(1, len(text) + 1)
            if any(stop and (passed + text[:end]).endswith(stop) for stop in stops)
        ),
        None,
    )


@given(stop=st.text(min_size=1, max_size=8), around=st.text(max_size=8), cut=st.integers(0, 20))
def test_any_characters(stop, around, cut):
    search, text = StopStrings([stop]), around + stop + around
    search.push(text[:cut])
    search.push(text[cut:])
    start = text.index(stop)
    assert (search.match_start, search.match_end) == (start, start + len(stop))


@pytest.mark.parametrize(
    ("stops", "text", "start", "end"),
    [
        (["stop"], "go stop go stop", 3, 7),  # inside a piece, and only the first
        (["bc", "abcd"], "abcd", 1, 3),  # the earliest end, though the other begins before
        (["bcd", "abcd"], "abcd", 0, 4),  # together: the longest
        (["", "b"], "ab", 1, 2),  # empty ones are ignored
        (["\n\n"], "\n\n", 0, 2),
        (["aab"], "aaab", 1, 4),  # overlaps itself
        (["😀b"], "a😀b", 1, 3),  # characters, not bytes
    ],
)
def test_rules(stops, text, start, end):
    search = StopStrings(stops)
    assert search.push(text) == end
    assert search.match_start == start
    assert search.push("more stop") == end


def test_nothing_to_find():
    for stops in ([], [""]):
        search = StopStrings(stops)
        assert search.push("anything") is None
        assert search.pending == 0


def test_pending_grows_and_falls_back():
    search = StopStrings(["###", "#-"])
    held = []
    for piece in ("a", "#", "#", "x", "##", "-"):
        search.push(piece)
        held.append(search.pending)
    assert held == [0, 1, 2, 0, 2, 0]
    assert (search.match_start, search.match_end) == (5, 7)


def test_a_long_text_of_near_misses():
    """Would be quadratic if a piece cost more with more text before it."""
    search = StopStrings(["a" * 2000 + "b"])
    for _ in range(100_000):
        assert search.push("aaa") is None
    assert search.pending == 2000
    assert search.push("b") == 300_001
    assert search.match_start == 300_001 - 2001
