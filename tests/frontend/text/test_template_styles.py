"""Our prompts against those of transformers, byte by byte, in the styles of the common families."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontend.text.rendering import (
    DOCUMENTS,
    STYLES,
    TOOLS,
    clock_of_transformers,
    ours,
    theirs,
)


@pytest.fixture(scope="module", autouse=True)
def _clock():
    with clock_of_transformers():
        yield


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def user(content="Hello?"):
    return {"role": "user", "content": content}


def assistant(content="Yes.", **more):
    return {"role": "assistant", "content": content, **more}


SYSTEM = {"role": "system", "content": "Be brief. "}
PARTS = [{"type": "text", "text": " One "}, {"type": "text", "text": "two\n"}]
WEATHER = call("weather", {"city": "Zürich", "at": [1.5, 2], "more": {"<b>": None}}, id="a1b2c3d4e")
STOP = call("stop", {}, id="b1b2c3d4e")
RESULT = {"role": "tool", "content": '{"t": 21.5}', "tool_call_id": "a1b2c3d4e", "name": "weather"}

CHATS = {
    "one": [user()],
    "markup": [user(" Hi <there> & 'you'\n"), assistant("Hello ü 😀 {{ not_code }}"), user("Bye")],
    "system": [SYSTEM, user("What is 2+2?")],
    "long": [SYSTEM, user(), assistant(), user("2"), assistant(" 3 "), user("4\r\n\r\n5\n\n6")],
    "empty": [{"role": "system", "content": ""}, user(""), assistant(""), user(" ")],
    "unicode": [
        user("日本語 \u200b\u2028 \ud7ff \x85 \x00"),
        assistant("👩‍👩‍👧 e\u0301"),
        user("\t"),
    ],
    "parts": [{"role": "system", "content": PARTS}, user(PARTS), assistant(PARTS), user(PARTS)],
    "media": [user([{"type": "image", "url": "x"}, {"type": "text", "text": "what?"}])],
    "call": [user(), assistant(None, tool_calls=[WEATHER])],
    "results": [
        SYSTEM,
        user("Weather?"),
        assistant(None, tool_calls=[WEATHER]),
        RESULT,
        assistant("21.5 °C"),
        user("Thanks"),
    ],
    "calls": [
        user("Weather?"),
        assistant("I look.", tool_calls=[WEATHER, STOP]),
        RESULT,
        {"role": "tool", "content": "", "tool_call_id": "b1b2c3d4e"},
    ],
    "call text": [user(), assistant("", tool_calls=[call("weather", '{"city": "x"}', id="1")])],
    "thoughts": [
        user("Think"),
        assistant("<think>a</think>\nyes", reasoning_content="because\n"),
        user("so?"),
    ],
    "thinking": [user(), assistant("no", thinking="hm", reasoning=None), user(), assistant("y")],
    "reasoning": [user(), assistant("no", reasoning="hm", tool_calls=[STOP]), RESULT],
    "inline thoughts": [user("Think"), assistant("<think>\na\n</think>\n\nyes")],
    "modes": [{"role": "system", "content": "x /no_think\n"}, user("/think"), assistant()],
    "override": [{"role": "system", "content": "y /system_override"}, user()],
    "developer": [{"role": "developer", "content": "Obey."}, user()],
    "wrong order": [user(), user(), SYSTEM, assistant(), assistant()],
    "unknown role": [{"role": "cat", "content": "miau"}, user()],
    "no content": [user(), {"role": "assistant"}, user(None)],
    "prefill": [user("Count"), assistant("one, two, ")],
    "prefill parts": [user("Count"), assistant(PARTS)],
    "prefill nothing": [user("Count"), assistant("")],
    "prefill twice": [user("ab"), assistant("ab")],
    "prefill thought": [user(), assistant("<think>\nwell")],
    "prefill after result": [
        user(),
        assistant(None, tool_calls=[WEATHER]),
        RESULT,
        assistant("21"),
    ],
    "prefill user": [SYSTEM, user("Once upon ")],
}
OPTIONS = {
    "prompt": {"add_generation_prompt": True},
    "no prompt": {"add_generation_prompt": False},
    "tools": {"add_generation_prompt": True, "tools": TOOLS},
    "no tools": {"add_generation_prompt": True, "tools": []},
    "documents": {"add_generation_prompt": True, "documents": DOCUMENTS},
    "both": {"add_generation_prompt": False, "tools": TOOLS[1:], "documents": DOCUMENTS},
    "continue": {"continue_final_message": True, "add_generation_prompt": False},
    "continue, tools": {
        "continue_final_message": True,
        "add_generation_prompt": False,
        "tools": TOOLS,
    },
    "no thinking": {"add_generation_prompt": True, "enable_thinking": False},
    "thinking": {"add_generation_prompt": True, "enable_thinking": True, "thinking": True},
    "variables": {
        "add_generation_prompt": True,
        "tools": TOOLS,
        "builtin_tools": ["weather", "code_interpreter"],
        "tools_in_user_message": False,
        "date_string": "1 May",
        "datetime": "now",
        "reasoning_effort": "high",
        "controls": {"citations": True, "length": None},
        "citation_mode": "accurate",
        "bos_token": "<other>",
    },
}


@pytest.mark.parametrize("style", STYLES)
def test_renders_as_transformers_does(style):
    source = STYLES[style]
    rendered = 0
    for name, messages in CHATS.items():
        for how, options in OPTIONS.items():
            expected = theirs(source, messages, **options)
            assert ours(source, messages, **options) == expected, (name, how)
            rendered += expected is not None
    assert rendered > len(OPTIONS)  # two refusals are equal, too


def test_every_chat_is_rendered_by_some_style():
    for name, messages in CHATS.items():
        assert any(theirs(source, messages, tools=TOOLS) for source in STYLES.values()), name


# --- any conversation -----------------------------------------------------------------------------

FRAGMENTS = [
    "<think>",
    "</think>",
    "\n",
    "\r\n",
    " ",
    "<tool_response>",
    "</tool_response>",
    "{{ x }}",
]
TEXT = st.lists(
    st.one_of(st.sampled_from([*FRAGMENTS, "/no_think", "ß", "'\"&<", "\\n"]), st.text(max_size=8)),
    max_size=5,
).map("".join)
CONTENT = st.one_of(
    TEXT,
    st.none(),
    st.lists(TEXT.map(lambda text: {"type": "text", "text": text}), max_size=3),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)
CALL = st.builds(
    call,
    st.sampled_from(["weather", "stop"]),
    st.one_of(st.dictionaries(st.text(max_size=4), JSON, max_size=2), TEXT),
    id=st.sampled_from(["a1b2c3d4e", "1", None]),
)


def conversations(content):
    """Conversations whose contents are drawn from a strategy; most are in a sensible order."""
    said = st.fixed_dictionaries({"role": st.just("user"), "content": content})
    answered = st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": content},
        optional={
            "reasoning_content": st.one_of(st.none(), TEXT),
            "reasoning": TEXT,
            "thinking": TEXT,
        },
    )
    called = st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "content": st.one_of(st.none(), content),
            "tool_calls": st.lists(CALL, max_size=2),
        },
        optional={"reasoning_content": TEXT},
    )
    result = st.fixed_dictionaries(
        {"role": st.just("tool"), "content": content},
        optional={"name": TEXT, "tool_call_id": st.sampled_from(["a1b2c3d4e", "1"])},
    )
    system = st.fixed_dictionaries({"role": st.just("system"), "content": content})
    other = st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "cat", ""]), "content": content}
    )
    turn = st.one_of(
        st.tuples(said, answered),
        st.tuples(said, answered),
        st.tuples(said, called, result, answered),
        st.lists(st.one_of(said, answered, called, result, other), max_size=3),
    )
    return st.builds(
        lambda first, turns, last: [*first, *(one for turn in turns for one in turn), *last],
        st.lists(system, max_size=1),
        st.lists(turn, max_size=3),
        st.lists(said, max_size=1),
    ).filter(bool)


CONVERSATION = st.one_of(conversations(TEXT), conversations(TEXT), conversations(CONTENT))
PARAMETERS = st.fixed_dictionaries(
    {
        "tools": st.sampled_from([None, TOOLS, TOOLS[:1], []]),
        "documents": st.sampled_from([None, DOCUMENTS, []]),
    },
    optional={
        "enable_thinking": st.booleans(),
        "controls": JSON,
    },
)
MODE = st.sampled_from(
    [
        {"add_generation_prompt": True},
        {"add_generation_prompt": False},
        {"add_generation_prompt": False, "continue_final_message": True},
    ]
)


@settings(max_examples=25)
@given(messages=CONVERSATION, parameters=PARAMETERS, mode=MODE)
@pytest.mark.parametrize("style", STYLES)
def test_any_conversation(style, messages, parameters, mode):
    options = {**parameters, **mode}
    source = STYLES[style]
    assert ours(source, messages, **options) == theirs(source, messages, **options)
