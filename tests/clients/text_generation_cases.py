"""The cases of the ``text-generation`` client; a script for the environment that has it.

Runs in the interpreter of ``.venv-text-generation`` with the server's address in ``MILLRACE_URL``
and prints one JSON line per case (see ``foreign.py``). Imports nothing of this project.
"""

import asyncio
import inspect
import json
import os
import sys
import traceback
from contextlib import contextmanager

from text_generation import AsyncClient, Client
from text_generation.errors import ValidationError
from text_generation.types import FinishReason, Grammar, GrammarType, Message, Tool

URL = os.environ["MILLRACE_URL"]
QUESTION = "What is the capital of France?"
USER = Message(role="user", content=QUESTION)
TOO_LONG = "word " * 5000
GREEDY = {"temperature": 0.0, "max_tokens": 40}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GET_WEATHER = {"name": "get_weather", "description": "Get the weather", "parameters": CITY}


def case_generate():
    answer = Client(URL).generate(QUESTION)
    details = answer.details
    assert "Paris" in answer.generated_text
    assert details.finish_reason is FinishReason.EndOfSequenceToken
    assert details.generated_tokens == len(details.tokens)
    assert details.seed is None
    assert details.prefill == []


def case_generate_with_everything():
    answer = Client(URL).generate(
        QUESTION,
        do_sample=True,
        max_new_tokens=8,
        best_of=2,
        repetition_penalty=1.1,
        return_full_text=True,
        stop_sequences=["never said"],
        temperature=0.7,
        top_k=20,
        top_p=0.9,
        typical_p=0.9,
        truncate=500,
        decoder_input_details=True,
        top_n_tokens=2,
    )
    assert answer.generated_text.startswith(QUESTION)
    assert len(answer.details.best_of_sequences) == 1
    assert answer.details.prefill[0].logprob is None
    assert len(answer.details.top_tokens) == len(answer.details.tokens)
    assert answer.details.seed is not None


def case_generate_stream():
    whole = Client(URL).generate(QUESTION)
    events = list(Client(URL).generate_stream(QUESTION, top_n_tokens=2))
    assert [event.token for event in events] == whole.details.tokens
    assert events[-1].generated_text == whole.generated_text
    assert events[-1].details.generated_tokens == len(events)
    assert all(event.generated_text is None for event in events[:-1])
    assert all(event.top_tokens for event in events)


def case_stop_and_seed():
    stopped = Client(URL).generate(QUESTION, stop_sequences=["France"])
    assert stopped.details.finish_reason is FinishReason.StopSequence
    assert stopped.generated_text.endswith("France")
    drawn = [Client(URL).generate(QUESTION, do_sample=True, seed=5) for _ in range(2)]
    assert drawn[0].generated_text == drawn[1].generated_text
    assert drawn[0].details.seed == 5


def case_chat():
    answer = Client(URL).chat([USER], **GREEDY)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage["completion_tokens"] > 0


def case_chat_stream():
    """This client reads the end marker of a chat stream as JSON, whatever the server."""
    text = ""
    try:
        for chunk in Client(URL).chat([USER], stream=True, **GREEDY):
            text += chunk.choices[0].delta.content or ""
    except json.JSONDecodeError:
        assert "Paris" in text
        return
    raise AssertionError("the end of the stream did not arrive")


@contextmanager
def refused(word):
    """What is inside is refused as a wrong value, in a sentence with ``word``."""
    try:
        yield
    except ValidationError as error:
        said = str(error)
    else:
        said = "nothing was refused"
    assert word in said, said


def case_validation_error():
    """Longer than any context: the client itself does not know."""
    with refused("inputs"):
        Client(URL).generate(TOO_LONG, max_new_tokens=10)
    with refused("inputs"):
        list(Client(URL).generate_stream(TOO_LONG, max_new_tokens=10))


def case_chat_error():
    with refused("temperature"):
        Client(URL).chat([USER], temperature=-1.0)


async def case_async_generate():
    answer = await AsyncClient(URL).generate(QUESTION)
    assert "Paris" in answer.generated_text


async def case_async_generate_stream():
    events = [event async for event in AsyncClient(URL).generate_stream(QUESTION)]
    assert "Paris" in events[-1].generated_text
    assert events[-1].details.generated_tokens == len(events)


async def case_async_chat():
    answer = await AsyncClient(URL).chat([USER], **GREEDY)
    assert "Paris" in answer.choices[0].message.content


async def case_async_chat_stream():
    text = ""
    try:
        async for chunk in await AsyncClient(URL).chat([USER], stream=True, **GREEDY):
            text += chunk.choices[0].delta.content or ""
    except json.JSONDecodeError:
        assert "Paris" in text
        return
    raise AssertionError("the end of the stream did not arrive")


async def case_async_validation_error():
    with refused("inputs"):
        await AsyncClient(URL).generate(TOO_LONG, max_new_tokens=10)


def case_grammar_json():
    for value in (PERSON, json.dumps(PERSON)):
        grammar = Grammar(type=GrammarType.Json, value=value)
        answer = Client(URL).generate("Anna, 31:", max_new_tokens=60, grammar=grammar)
        assert set(json.loads(answer.generated_text)) == {"name", "age"}


def case_grammar_regex():
    grammar = Grammar(type=GrammarType.Regex, value="[0-9]{3}-[0-9]{4}")
    answer = Client(URL).generate("Phone:", max_new_tokens=20, grammar=grammar)
    number = answer.generated_text
    assert len(number) == 8, number
    assert number[3] == "-", number


def case_tools():
    tool = Tool(type="function", function=GET_WEATHER)
    question = Message(role="user", content="What is the weather in Paris?")
    answer = Client(URL).chat([question], tools=[tool], tool_choice="get_weather", **GREEDY)
    (call,) = answer.choices[0].message.tool_calls
    assert call["function"]["name"] == "get_weather"
    assert set(json.loads(call["function"]["arguments"])) == {"city"}


def main() -> None:
    """Run every case, in the order of the file."""
    for name, case in list(globals().items()):
        if not name.startswith("case_"):
            continue
        error = ""
        try:
            asyncio.run(case()) if inspect.iscoroutinefunction(case) else case()
        except Exception:
            error = traceback.format_exc()
        line = {"case": name, "passed": not error, "error": error}
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
