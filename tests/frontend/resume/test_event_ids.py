import pytest

from frontend.resume.event_ids import END, Position, Told, parse, render

TICKET = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "position",
    [
        Position((Told(0),)),
        Position((Told(12), Told(7, over=True))),
        Position((Told(12), Told(7)), 1, 3),
        Position((Told(80, over=True),), END, 1),
    ],
)
def test_what_is_rendered_is_read_again(position: Position) -> None:
    assert parse(render(TICKET, position)) == (TICKET, position)


@pytest.mark.parametrize(
    "text",
    [
        "", "7", TICKET, f"{TICKET}:", f"{TICKET}:x", f"{TICKET}:1.", f"{TICKET}:-1",
        f"{TICKET}:1+1.1", f"{TICKET}:1+0", f"{TICKET.upper()}:1", f"{TICKET}:1\n",
        f"{TICKET}:12345678", f"{TICKET}:\N{ARABIC-INDIC DIGIT ONE}", f"x{TICKET}:1",
        f"{TICKET}:" + ".".join(["1"] * 5000),
    ],
)  # fmt: skip
def test_what_is_none_of_ours(text: str) -> None:
    assert parse(text) is None
