"""How sums are asked for, in training and held out (see `kinds.py`)."""

from __future__ import annotations

from typing import Final

from tools.builtin_model.kinds import SumKind, lines

SUM_KINDS: Final = (
    SumKind(
        "addition",
        "+",
        30,
        lines("""
            What is {a} + {b}?
            {a} + {b} =
            {a}+{b}
            What is {a} plus {b}?
            How much is {a} plus {b}?
            Add {a} and {b}.
            What is the sum of {a} and {b}?
            Calculate {a} + {b}.
            {a} plus {b}?
            I have {a} apples and get {b} more. How many apples do I have?
        """),
        lines("""
            How much is {a} + {b}?
            Tell me the sum of {a} and {b}.
        """),
    ),
    SumKind(
        "subtraction",
        "-",
        30,
        lines("""
            What is {a} - {b}?
            {a} - {b} =
            {a}-{b}
            What is {a} minus {b}?
            How much is {a} minus {b}?
            Take {b} away from {a}.
            What is the difference between {a} and {b}?
            Calculate {a} - {b}.
            {a} minus {b}?
            I have {a} apples and give away {b}. How many apples do I have?
        """),
        lines("""
            How much is {a} - {b}?
            Tell me the difference between {a} and {b}.
        """),
    ),
    SumKind(
        "multiplication",
        "*",
        10,
        lines("""
            What is {a} * {b}?
            {a} * {b} =
            {a}*{b}
            What is {a} times {b}?
            How much is {a} times {b}?
            Multiply {a} by {b}.
            What is the product of {a} and {b}?
            Calculate {a} * {b}.
            {a} times {b}?
            There are {a} boxes with {b} apples each. How many apples are there?
        """),
        lines("""
            How much is {a} * {b}?
            Tell me the product of {a} and {b}.
        """),
    ),
)
