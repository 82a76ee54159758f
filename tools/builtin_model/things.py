"""Questions about colours, animals, opposites, elements and shapes (see `kinds.py`)."""

from __future__ import annotations

from typing import Final

from tools.builtin_model import facts
from tools.builtin_model.kinds import FactKind, lines

COLOUR: Final = FactKind(
    "colour",
    facts.COLOURS,
    lines("""
        {x} is {y}.
        The colour of {x} is {y}.
        {y} is the colour of {x}.
    """),
    lines("""
        What colour is {x}?
        What is the colour of {x}?
        Which colour is {x}?
        What color is {x}?
        What is the color of {x}?
        Tell me the colour of {x}.
        Name the colour of {x}.
        Do you know what colour {x} is?
        Which colour does {x} have?
        If I paint {x}, which colour do I need?
        What colour does {x} usually have?
    """),
    lines("""
        Can you tell me the colour of {x}?
        Which color is {x}?
        {x}: what colour is it?
    """),
)

SOUND: Final = FactKind(
    "sound",
    facts.SOUNDS,
    lines("""
        A {x} {y}.
        The {x} {y}.
    """),
    lines("""
        What sound does a {x} make?
        What noise does a {x} make?
        Which sound does a {x} make?
        What does a {x} sound like?
        How does a {x} sound?
        Tell me what sound a {x} makes.
        What is the sound of a {x}?
        Which noise does the {x} make?
        Name the sound a {x} makes.
        Do you know what noise a {x} makes?
    """),
    lines("""
        What kind of sound does a {x} make?
        What sound do you hear from a {x}?
        Can you tell me which noise a {x} makes?
    """),
)

YOUNG: Final = FactKind(
    "young",
    facts.YOUNG,
    lines("""
        A young {x} is called a {y}.
        A baby {x} is called a {y}.
        A {y} is a young {x}.
    """),
    lines("""
        What is a young {x} called?
        What is a baby {x} called?
        What do you call a young {x}?
        What do you call a baby {x}?
        What is the name for a baby {x}?
        How is a young {x} called?
        Tell me the word for a baby {x}.
        Which word means a young {x}?
        What do we call the young of a {x}?
        Name the young of a {x}.
        Do you know what a baby {x} is called?
    """),
    lines("""
        What is the word for a young {x}?
        Can you tell me what a baby {x} is called?
        How do you call the young of a {x}?
    """),
)

OPPOSITE: Final = FactKind(
    "opposite",
    facts.OPPOSITES,
    lines("""
        The opposite of {x} is {y}.
        {y} is the opposite of {x}.
    """),
    lines("""
        What is the opposite of {x}?
        What's the opposite of {x}?
        Tell me the opposite of {x}.
        Which word is the opposite of {x}?
        Give me the opposite of {x}.
        What is the reverse of {x}?
        Name the opposite of {x}.
        What word means the opposite of {x}?
        Do you know the opposite of {x}?
        If something is not {x}, it is the opposite. What is it?
        The opposite of {x} is what?
        What is the antonym of {x}?
    """),
    lines("""
        Can you tell me the opposite of {x}?
        Which word means the opposite of {x}?
        I need the opposite of {x}.
    """),
)

SYMBOL: Final = FactKind(
    "symbol",
    facts.SYMBOLS,
    lines("""
        The chemical symbol for {x} is {y}.
        {y} is the chemical symbol for {x}.
        The symbol of {x} is {y}.
    """),
    lines("""
        What is the chemical symbol for {x}?
        What is the chemical symbol of {x}?
        What is the symbol for {x}?
        Which symbol does {x} have?
        Tell me the chemical symbol of {x}.
        Give me the symbol for {x}.
        Which chemical symbol stands for {x}?
        How is {x} written in the periodic table?
        Name the chemical symbol for {x}.
        Do you know the symbol of {x}?
        What's the chemical symbol for {x}?
        What symbol is used for {x}?
    """),
    lines("""
        Can you tell me the chemical symbol for {x}?
        Which chemical symbol does {x} have?
        What is the symbol of {x} in the periodic table?
    """),
)

ELEMENT: Final = FactKind(
    "element",
    facts.ELEMENTS,
    lines("""
        {x} is the chemical symbol for {y}.
        {x} stands for {y}.
    """),
    lines("""
        Which element has the symbol {x}?
        What element has the symbol {x}?
        What does the chemical symbol {x} stand for?
        The symbol {x} stands for which element?
        Which element is {x}?
        Tell me which element has the symbol {x}.
        Name the element with the symbol {x}.
        What is the element with the symbol {x}?
        In the periodic table, what is {x}?
        Do you know which element {x} is?
        The chemical symbol {x} means which element?
    """),
    lines("""
        Which element does the symbol {x} stand for?
        What is the name of the element with the symbol {x}?
        Can you tell me which element has the chemical symbol {x}?
    """),
)

SIDES: Final = FactKind(
    "sides",
    facts.SIDES,
    lines("""
        A {x} has {y} sides.
        There are {y} sides in a {x}.
    """),
    lines("""
        How many sides does a {x} have?
        How many sides has a {x}?
        What is the number of sides of a {x}?
        Tell me how many sides a {x} has.
        A {x} has how many sides?
        Give me the number of sides of a {x}.
        How many sides are there in a {x}?
        Do you know how many sides a {x} has?
    """),
    lines("""
        Can you tell me how many sides a {x} has?
        Count the sides of a {x}.
        What number of sides does a {x} have?
    """),
)

THING_KINDS: Final = (COLOUR, SOUND, YOUNG, OPPOSITE, SYMBOL, ELEMENT, SIDES)
