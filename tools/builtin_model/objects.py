"""Small JSON objects and tool calls: questions, tool lists, and the JSON that answers them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tools.builtin_model import facts

NAMES: Final = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Karim",
    "Lena", "Maria", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tara", "Uma", "Victor", "Wanda",
    "Yusuf", "Zoe", "Alice", "Bob", "Clara", "Daniel", "Ella", "Frank", "Georg", "Hanna",
    "Ivan", "Julia", "Kevin", "Laura", "Max", "Nina", "Oscar", "Petra", "Ravi", "Sofia",
    "Thomas", "Vera", "Will", "Yara", "Leo", "Mia", "Tom", "Eva", "Ali", "Chen", "John", "Mary",
    "Peter", "Susan", "Olivier", "Lucas", "Amir", "Elena", "Kofi", "Ama", "Hiro", "Yuki",
    "Linh", "Diego", "Lucia", "Pablo",
)  # fmt: skip
_CITIES: Final = (*facts.CAPITALS.values(), "New York", "Barcelona", "Hamburg", "Osaka")
_JOBS: Final = (
    "teacher doctor baker farmer pilot nurse engineer painter student cook".split()  # noqa: SIM905
)
_COLOURS: Final = sorted(set(facts.COLOURS.values()))
_PETS: Final = list(facts.SOUNDS)

# Field of a person: how its value is drawn, and how it reads in a sentence about {n}.
_FIELDS: Final[dict[str, tuple[Callable[[Random], Any], str]]] = {
    "age": (lambda rng: rng.randint(1, 99), "{n} is {v} years old."),
    "city": (lambda rng: rng.choice(_CITIES), "{n} lives in {v}."),
    "country": (lambda rng: rng.choice(list(facts.CAPITALS)), "{n} comes from {v}."),
    "job": (lambda rng: rng.choice(_JOBS), "{n} works as a {v}."),
    "colour": (lambda rng: rng.choice(_COLOURS), "{n} likes the colour {v}."),
    "pet": (lambda rng: rng.choice(_PETS), "{n} has a {v}."),
}


def dump(value: Any) -> str:
    """JSON as the model writes it: one line, a space after each comma and colon."""
    return json.dumps(value, ensure_ascii=False)


def made_up_word(rng: Random) -> str:
    """A name that is in no table, so that copying has to be learned."""
    syllables = "ba be bo da di do ka ki ko la le lo ma mi mo na ne no ra ri ro sa si so ta ti to"
    return "".join(rng.choices(syllables.split(), k=rng.randint(2, 3))).capitalize()


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def person(rng: Random) -> tuple[str, str]:
    """A request for a JSON object about a person, and the object."""
    name = rng.choice(NAMES) if rng.random() < 0.7 else made_up_word(rng)
    fields = rng.sample(list(_FIELDS), rng.choice((1, 1, 1, 2, 2, 3)))
    if rng.random() < 0.4:
        fields = ["age", *[field for field in fields if field != "age"][:1]]
    values = {"name": name} | {field: _FIELDS[field][0](rng) for field in fields}
    keys = _and(list(values))
    listed = ", ".join(str(values[field]) for field in fields)
    told = " ".join(_FIELDS[field][1].format(n=name, v=values[field]) for field in fields)
    ask = rng.choice(
        (
            f"Give me a JSON object with the {keys} of {name}, {listed}.",
            f"Write a JSON object with the {keys} of {name}, {listed}.",
            f"Make a JSON object with {keys}: {name}, {listed}.",
            f"{name}, {listed}. Answer as JSON with {keys}.",
            f"{told} Write this as JSON.",
            f"{told} Give me the {keys} as a JSON object.",
            f"Extract the {keys} as JSON: {told}",
            f"{told} Return JSON.",
        )
    )
    return ask, dump(values)


def fact_object(rng: Random) -> tuple[str, str]:
    """A request for a JSON object about a country, and the object."""
    country, capital = rng.choice(list(facts.CAPITALS.items()))
    ask = rng.choice(
        (
            f"Give me a JSON object with the country and capital of {country}.",
            f"Write the capital of {country} as JSON.",
            f"What is the capital of {country}? Answer as JSON.",
            f"Give me {country} and its capital as a JSON object.",
        )
    )
    return ask, dump({"country": country.removeprefix("the "), "capital": capital})


@dataclass(frozen=True)
class ToolKind:
    """One tool: its schema, what a user says, and what comes back from a call."""

    name: str
    description: str
    types: tuple[str, ...]  # JSON type of each argument, in order
    argument_names: tuple[tuple[str, ...], ...]  # the names an argument may have
    draws: tuple[Callable[[Random], Any], ...]
    asks: tuple[str, ...]  # {0}, {1}: the arguments
    results: tuple[tuple[dict[str, Any], str], ...]  # (what the tool says, what the model says)


def _city(rng: Random) -> str:
    return rng.choice(_CITIES)


def _number(rng: Random) -> int:
    return rng.randint(1, 60)


TOOL_KINDS: Final = (
    ToolKind(
        "get_weather", "Get the weather of a city", ("string",), (("city", "location", "place"),),
        (_city,),
        ("What is the weather in {0}?", "What's the weather like in {0}?", "Is it raining in {0}?",
         "How is the weather in {0} today?", "Tell me the weather in {0}.", "Weather in {0}?"),
        (({"temperature": 21, "sky": "sunny"}, "It is sunny in {0}, 21 degrees."),
         ({"temperature": 9, "sky": "rain"}, "It is raining in {0}, 9 degrees.")),
    ),
    ToolKind(
        "get_time", "Get the time in a city", ("string",), (("city", "location", "timezone"),),
        (_city,),
        ("What time is it in {0}?", "Tell me the time in {0}.", "What is the time in {0} now?"),
        (({"time": "10:30"}, "It is 10:30 in {0}."), ({"time": "18:05"}, "It is 18:05 in {0}.")),
    ),
    ToolKind(
        "add", "Add two numbers", ("integer", "integer"), (("a", "x"), ("b", "y")),
        (_number, _number),
        ("Add {0} and {1}.", "What is {0} plus {1}?", "Use the tool to add {0} and {1}."),
        (({"result": 42}, "The result is 42."), ({"result": 17}, "The result is 17.")),
    ),
    ToolKind(
        "set_timer", "Start a timer", ("integer",), (("minutes",),), (_number,),
        ("Set a timer for {0} minutes.", "Start a timer of {0} minutes.", "Timer, {0} minutes."),
        (({"ok": True}, "The timer is set to {0} minutes."),),
    ),
    ToolKind(
        "search", "Search the web", ("string",), (("query", "text"),),
        (lambda rng: rng.choice((*_PETS, *_JOBS, *NAMES)),),
        ("Search for {0}.", "Search the web for {0}.", "Look up {0}.", "Find pages about {0}."),
        (({"hits": 3}, "I found 3 pages about {0}."), ({"hits": 0}, "I found nothing about {0}.")),
    ),
    ToolKind(
        "send_message", "Send a message to a person", ("string", "string"),
        (("to", "name"), ("text", "message")),
        (lambda rng: rng.choice(NAMES),
         lambda rng: rng.choice(("hello", "thank you", "good night"))),
        ("Send {0} the message {1}.", "Write {1} to {0}.", "Tell {0}: {1}"),
        (({"sent": True}, "I sent the message to {0}."),),
    ),
    ToolKind(
        "play_music", "Play music", ("string",), (("artist", "song"),),
        (lambda rng: rng.choice(NAMES),),
        ("Play music by {0}.", "Play {0}.", "I want to hear {0}."),
        (({"playing": True}, "Now playing {0}."),),
    ),
    ToolKind(
        "switch_light", "Switch the light of a room", ("string", "string"),
        (("room",), ("state",)),
        (lambda rng: rng.choice(("kitchen", "garden", "office", "bedroom")),
         lambda rng: rng.choice(("on", "off"))),
        ("Switch {1} the light in the {0}.", "Turn the {0} light {1}.", "Light {1} in the {0}."),
        (({"ok": True}, "The light in the {0} is {1}."),),
    ),
)  # fmt: skip
NO_TOOL: Final = {
    "name": "no_tool",
    "description": "Open ended response with no specific tool selected",
    "parameters": {"type": "object", "properties": {}, "required": []},
}
TOOL_PROMPTS: Final = (
    "Given the functions available, please respond with a JSON for a function call with its "
    "proper arguments that best answers the given prompt. Respond in the format {name: function "
    "name, parameters: dictionary of argument name and its value}. Do not use variables.",
    "Reply with a JSON function call: its name and a dictionary of parameters. No variables.",
    "Answer with a JSON call of one of the functions. Do not use variables.",
)


def schema(tool: ToolKind, names: list[str], rng: Random) -> dict[str, Any]:
    """The JSON description of a tool, in one of the shapes that clients and servers use."""
    properties = {name: {"type": kind} for name, kind in zip(names, tool.types, strict=True)}
    parameters = {"type": "object", "properties": properties, "required": names}
    shape = rng.randrange(4)
    if shape == 0:
        return {"description": tool.description, "name": tool.name, "arguments": dump(parameters)}
    if shape == 1:
        return {"description": tool.description, "name": tool.name, "parameters": parameters}
    if shape == 2:
        return {"name": tool.name, "parameters": parameters}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}
