"""Questions about days and months, in training and held out (see `kinds.py`)."""

from __future__ import annotations

from typing import Final

from tools.builtin_model import facts
from tools.builtin_model.kinds import FactKind, lines

DAY_AFTER: Final = FactKind(
    "day_after",
    facts.DAY_AFTER,
    lines("""
        The day after {x} is {y}.
        {x} is followed by {y}.
        After {x} comes {y}.
    """),
    lines("""
        What day comes after {x}?
        Which day comes after {x}?
        Which day follows {x}?
        What is the day after {x}?
        What day is after {x}?
        If today is {x}, what day is tomorrow?
        Today is {x}. What day is tomorrow?
        Tell me the day after {x}.
        What comes after {x}?
        Name the day that follows {x}.
        What is the next day after {x}?
    """),
    lines("""
        Can you tell me which day comes after {x}?
        What day follows {x}?
        Which day is tomorrow if today is {x}?
    """),
)

DAY_BEFORE: Final = FactKind(
    "day_before",
    facts.DAY_BEFORE,
    lines("""
        The day before {x} is {y}.
        Before {x} comes {y}.
    """),
    lines("""
        What day comes before {x}?
        Which day comes before {x}?
        What is the day before {x}?
        What day is before {x}?
        If today is {x}, what day was yesterday?
        Today is {x}. What day was yesterday?
        Tell me the day before {x}.
        What comes before {x}?
        Name the day that comes before {x}.
        Which day is just before {x}?
    """),
    lines("""
        Can you tell me which day comes before {x}?
        Which day is before {x}?
        Which day was yesterday if today is {x}?
    """),
)

MONTH_AFTER: Final = FactKind(
    "month_after",
    facts.MONTH_AFTER,
    lines("""
        The month after {x} is {y}.
        {x} is followed by {y}.
        After {x} comes {y}.
    """),
    lines("""
        What month comes after {x}?
        Which month comes after {x}?
        Which month follows {x}?
        What is the month after {x}?
        What month is after {x}?
        If this month is {x}, what is the next month?
        It is {x} now. What month is next?
        Tell me the month after {x}.
        What comes after {x}?
        Name the month that follows {x}.
        What is the next month after {x}?
    """),
    lines("""
        Can you tell me which month comes after {x}?
        What month follows {x}?
        Which month is next if it is {x} now?
    """),
)

MONTH_BEFORE: Final = FactKind(
    "month_before",
    facts.MONTH_BEFORE,
    lines("""
        The month before {x} is {y}.
        Before {x} comes {y}.
    """),
    lines("""
        What month comes before {x}?
        Which month comes before {x}?
        What is the month before {x}?
        What month is before {x}?
        If this month is {x}, what was the last month?
        It is {x} now. What month was it before?
        Tell me the month before {x}.
        What comes before {x}?
        Name the month that comes before {x}.
        Which month is just before {x}?
    """),
    lines("""
        Can you tell me which month comes before {x}?
        Which month is before {x}?
        What was the last month if this month is {x}?
    """),
)

DATE_KINDS: Final = (DAY_AFTER, DAY_BEFORE, MONTH_AFTER, MONTH_BEFORE)
