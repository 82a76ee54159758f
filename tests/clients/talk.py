"""What the clients ask: questions, schemas and tools that the built-in model knows.

Runs in the tests' process. Knows the model's habits, nothing of clients.
"""

from typing import Any

QUESTION = "What is the capital of France?"
USER = {"role": "user", "content": QUESTION}
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 40}

ABOUT_ANNA = {"role": "user", "content": "Anna is 31 years old. Write this as JSON."}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

WEATHER = {"role": "user", "content": "What is the weather in Paris?"}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
MINUTES = {
    "type": "object",
    "properties": {"minutes": {"type": "integer"}},
    "required": ["minutes"],
    "additionalProperties": False,
}


def function(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A tool as chat completions know it."""
    described = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": described}


GET_WEATHER = function("get_weather", "Get the weather of a city", CITY)
SET_TIMER = function("set_timer", "Start a timer", MINUTES)
