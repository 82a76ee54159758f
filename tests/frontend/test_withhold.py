"""Text that may become a stop string is not shown before it is clear."""

from hypothesis import given
from hypothesis import strategies as st

from frontend.text.stop_strings import StopStrings
from frontend.withhold import Withheld


def run(pieces: list[tuple[str, bool]], stops: list[str]) -> tuple[list[str], bool]:
    """What is shown piece by piece, as ``generation.py`` does it; whether a stop was found."""
    search, held, seen = StopStrings(stops), Withheld(), 0
    shown = []
    for text, hidden in pieces:
        end = search.push(text)
        seen += len(text)
        held.push(text, hidden=hidden)
        if end is not None:
            shown.append(held.release(seen - (search.match_start or 0)))
            return shown, True
        shown.append(held.release(search.pending))
    shown.append(held.release(0))
    return shown, False


def test_a_possible_beginning_is_kept_back() -> None:
    assert run([("abc", False), ("d x", False), ("y", False)], ["cde"]) == (
        ["ab", "cd x", "y", ""],
        False,
    )
    assert run([("abc", False), ("d", False), ("ef", False)], ["cde"]) == (["ab", "", ""], True)


def test_special_tokens_take_part_but_are_not_shown() -> None:
    assert run([("ab", False), ("<end>", True)], ["<end>"]) == (["ab", ""], True)
    assert run([("ab", False), ("<end>", True), ("\n", False)], ["<end>\n"]) == (
        ["ab", "", ""],
        True,
    )
    assert run([("ab", False), ("<x>", True), ("c", False)], ["q"]) == (["ab", "", "c", ""], False)


@given(
    st.lists(st.tuples(st.text("ab<", max_size=4), st.booleans()), max_size=12),
    st.lists(st.text("ab<", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_shown_text_is_the_visible_text_before_the_first_stop(
    pieces: list[tuple[str, bool]], stops: list[str]
) -> None:
    shown, found = run(pieces, stops)
    text = "".join(piece for piece, _ in pieces)
    hidden = [secret for piece, secret in pieces for _ in piece]
    ends = [(text.find(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    assert found == bool(ends)
    limit = len(text)
    if ends:
        end, negative = min(ends)
        limit = end + negative
    visible = "".join(text[i] for i in range(limit) if not hidden[i])
    assert "".join(shown) == visible
