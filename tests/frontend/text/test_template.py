"""What a template is given, how a message is continued, and what a client reads when it fails."""

import json

import pytest

from common.errors import ErrorKind, RequestError
from frontend.text.template import ChatTemplate
from tests.frontend.text.rendering import SPECIAL, STYLES

TURNS = [
    {"role": "user", "content": " Hi <there> & 'you'\n"},
    {"role": "assistant", "content": "Hello ü 😀 {{ not_code }}"},
    {"role": "user", "content": "Bye"},
]
THOUGHTS = [
    {"role": "user", "content": "Think"},
    {"role": "assistant", "content": "<think>a</think>\nyes", "reasoning": "because"},
    {"role": "user", "content": "so?", "name": None},
]


def render(source, messages=TURNS, **options):
    return ChatTemplate({"default": source}, SPECIAL).render(messages, **options)


def refusal(source, messages=TURNS, **options):
    with pytest.raises(RequestError) as caught:
        render(source, messages, **options)
    assert caught.value.kind is ErrorKind.TEMPLATE
    return caught.value.message


def test_continuing_a_list_of_parts():
    source = (
        "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}END"
    )
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b "}, {"type": "image"}]
    chat = [{"role": "assistant", "content": parts}]
    assert render(source, chat, continue_final_message=True) == "[a ][b "
    assert parts[1]["text"] == "b "  # the caller's own are untouched
    for content in (None, [], [{"type": "image"}], 3):
        chat = [{"role": "assistant", "content": content}]
        assert "continued" in refusal(source, chat, continue_final_message=True)


def test_continuing_where_the_template_drops_the_message():
    assert "continued" in refusal("{{ messages[0].content }}", continue_final_message=True)


def test_messages_are_not_changed():
    chat = json.loads(json.dumps(THOUGHTS))
    render(STYLES["chatml"], chat, continue_final_message=True)
    assert chat == THOUGHTS


def test_variables():
    source = "{{ bos_token }}|{{ pad_token }}|{{ mask_token }}|{{ mode }}|{{ documents[0].title }}"
    options = {"template_kwargs": {"mode": {"a": 1}, "pad_token": "P"}}
    assert render(source, documents=[{"title": "T"}], **options) == "<s>|P||{'a': 1}|T"
    for name in ("messages", "tools", "documents", "add_generation_prompt"):
        with pytest.raises(RequestError, match=f"`{name}`") as caught:
            render(source, template_kwargs={name: []})
        assert caught.value.kind is ErrorKind.VALIDATION
    with pytest.raises(RequestError, match="empty"):
        render(source, [])


def test_generation_tags_make_a_scope():
    inner = "{% generation %}{% set x = i %}{{ x }}{{ loop.index }}{% endgeneration %}"
    source = "{% for i in [1, 2] %}" + inner + "{{ x }}{% endfor %}{{ x }}"
    assert render(source) == "1122"


def test_mentions():
    template = ChatTemplate(
        {"default": "{{ messages }}", "tool_use": "{{ tools }}", "rag": "{{ documents }}"}
    )
    assert template.mentions("messages")
    assert not template.mentions("tools")
    assert template.mentions("tools", tools=True)


# --- failures ---------------------------------------------------------------------------------


def test_raised_messages_are_the_clients():
    assert refusal("{{ raise_exception('No ' + messages[0].role) }}") == "Template error: No user"
    assert len(refusal("{{ raise_exception('x' * 100000) }}")) < 1000


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\n{{ messages.x.y }}", "UndefinedError in line 2"),
        ("a\n\n{% for m in messages %}\n{{ m.content + 1 }}{% endfor %}", "TypeError in line 4"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ missing | tojson }}", "TypeError"),
        ("{% include 'x' %}", "TypeError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deeply"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__ }}", "SecurityError"),
        ("{{ namespace(__class__=1) }}", "SecurityError"),
        ("{% set n = namespace() %}{% set n.__html__ = 1 %}", "SecurityError"),
        ("{{ messages.x.y }}", "'list object' has no attribute 'x'"),
        ("{{ 'a' + [messages] }}", 'can only concatenate str (not "list") to str'),
    ],
)
def test_failures_name_the_line_and_the_kind(source, expected):
    assert expected in refusal(source)


def test_failures_do_not_quote_the_conversation():
    chat = [{"role": "user", "content": "my secret"}]
    for source in (
        "{{ {}[messages[0].content].x }}",
        "{{ messages[0].content.index('absent') }}",
        "{{ range(messages[0].content) }}",
        "{{ 'abc' | int(base=messages[0].content) }}",
        "{{ messages[messages[0].content].x }}",
        "{{ dict(**{messages[0].content: 1}).x.y }}",
        "{% macro m() %}{% endmacro %}{{ m(**{messages[0].content: 1}) }}",
        "{{ messages[0].content | tojson(indent=messages) }}",
    ):
        try:
            said = render(source, chat)
        except RequestError as error:
            said = error.message
        assert "secret" not in said


def test_deep_input():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested" in refusal("{{ x }}", template_kwargs={"x": deep})
