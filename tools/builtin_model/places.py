"""Questions about countries and cities, in training and held out (see `kinds.py`)."""

from __future__ import annotations

from typing import Final

from tools.builtin_model import facts
from tools.builtin_model.kinds import FactKind, lines

CAPITAL: Final = FactKind(
    "capital",
    facts.CAPITALS,
    lines("""
        The capital of {x} is {y}.
        {y} is the capital of {x}.
        The capital city of {x} is {y}.
        {x} has {y} as its capital.
        {x}'s capital is {y}.
    """),
    lines("""
        What is the capital of {x}?
        What's the capital of {x}?
        What is the capital city of {x}?
        Which city is the capital of {x}?
        Tell me the capital of {x}.
        Name the capital of {x}.
        What is {x}'s capital?
        Do you know the capital of {x}?
        Can you tell me what the capital of {x} is?
        The capital of {x} is which city?
        What city is {x}'s capital?
        I want to know the capital of {x}.
        Capital of {x}?
        What is the name of the capital of {x}?
        Give me the capital of {x}.
        {x}: what is the capital?
        If I go to {x}, which city is the capital there?
        Which capital does {x} have?
        Where is the seat of government of {x}, the capital?
        Say the name of {x}'s capital city.
    """),
    lines("""
        Which city serves as the capital of {x}?
        Could you name the capital city of {x}?
        I forgot the capital of {x}. What is it?
        What is the capital called in {x}?
    """),
)

COUNTRY: Final = FactKind(
    "country",
    facts.COUNTRIES,
    lines("""
        {x} is the capital of {y}.
        {x} is the capital city of {y}.
        {x} lies in {y}.
    """),
    lines("""
        Which country has {x} as its capital?
        {x} is the capital of which country?
        What country is {x} the capital of?
        Of which country is {x} the capital?
        {x} is the capital of what?
        In which country is {x}?
        Where is {x}?
        Which country is {x} in?
        Tell me which country {x} is the capital of.
        What country does the city of {x} belong to?
        Do you know where {x} is?
        Name the country whose capital is {x}.
        In what country can I find {x}?
    """),
    lines("""
        The city of {x} is the capital of which country?
        What country has the capital {x}?
        Can you tell me in which country {x} lies?
    """),
)

LANGUAGE: Final = FactKind(
    "language",
    facts.LANGUAGES,
    lines("""
        People in {x} speak {y}.
        The main language of {x} is {y}.
        {y} is spoken in {x}.
    """),
    lines("""
        Which language is spoken in {x}?
        What language do people speak in {x}?
        What language do they speak in {x}?
        What is the language of {x}?
        What is the main language of {x}?
        Tell me the language of {x}.
        Which language do the people of {x} speak?
        If I go to {x}, which language should I learn?
        In {x}, what language is used?
        Name the language people use in {x}.
        Do you know which language they speak in {x}?
        What do people speak in {x}?
    """),
    lines("""
        What language is used by people in {x}?
        Can you tell me the main language spoken in {x}?
        Which language will I hear in {x}?
    """),
)

CONTINENT: Final = FactKind(
    "continent",
    facts.CONTINENTS,
    lines("""
        {x} is in {y}.
        {x} is a country in {y}.
        {x} lies on the continent of {y}.
    """),
    lines("""
        Which continent is {x} in?
        On which continent is {x}?
        What continent is {x} in?
        What continent does {x} belong to?
        Tell me the continent of {x}.
        {x} is in which continent?
        On what continent can I find {x}?
        Name the continent {x} is on.
        In which part of the world is {x}?
        Do you know which continent {x} is on?
        What is the continent of {x}?
    """),
    lines("""
        {x} belongs to which continent?
        Can you tell me what continent {x} lies on?
        On which continent does {x} lie?
    """),
)

PLACE_KINDS: Final = (CAPITAL, COUNTRY, LANGUAGE, CONTINENT)
