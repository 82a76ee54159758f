"""The ids of events: which stream, and how far its client has read.

::

    <32 hexadecimal digits>:<tokens of run 0>[.<tokens of run 1> …][+<run>.<events>]

A run that is over has an ``e`` behind its tokens. A token may make several events; in the middle of
them ``+`` tells the run, and how many of its next token's events have been told. ``+e`` stands for
the events after all runs. Pure; runs in front ends.
"""

import re
from typing import NamedTuple

END = -1
"""Stands for the events after all runs, where a run is named."""
_ID = re.compile(
    r"([0-9a-f]{32}):([0-9]{1,7}e?(?:\.[0-9]{1,7}e?){0,4095})(?:\+([0-9]{1,4}|e)\.([0-9]{1,7}))?"
)


class Told(NamedTuple):
    """How much of a run has been told."""

    tokens: int = 0
    over: bool = False


class Position(NamedTuple):
    """How much of a stream has been told."""

    runs: tuple[Told, ...]
    within: int | None = None
    """The run whose next token has been told in part, or END."""
    events: int = 0
    """How many events of it."""


def render(ticket: str, position: Position) -> str:
    """The id of the event after which a client has read so far."""
    runs = ".".join(f"{run.tokens}{'e' if run.over else ''}" for run in position.runs)
    if position.within is None:
        return f"{ticket}:{runs}"
    within = "e" if position.within == END else str(position.within)
    return f"{ticket}:{runs}+{within}.{position.events}"


def parse(text: str) -> tuple[str, Position] | None:
    """The ticket and the position; None if the text is no id of ours."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    runs = tuple(Told(int(run.rstrip("e")), run.endswith("e")) for run in match[2].split("."))
    if match[3] is None:
        return match[1], Position(runs)
    within = END if match[3] == "e" else int(match[3])
    if within >= len(runs):
        return None
    return match[1], Position(runs, within, int(match[4]))
