"""Rendering, against transformers on templates written in the styles of the common families."""

import functools
import json
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ErrorKind, RequestError, StartupError
from frontend.text.meter import LimitExceededError, Meter, RenderLimits
from frontend.text.template import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
NOW = datetime(2024, 7, 26, 12, 30)

STYLES = {
    "chatml": """{% for message in messages %}
{% if loop.first and message.role != 'system' %}
{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{% endif %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
""",
    "inst": """{% if messages[0]['role'] == 'system' %}
  {% set turns = messages[1:] %}{% set system = messages[0]['content'] %}
{% else %}{% set turns = messages %}{% set system = false %}{% endif %}
{% for turn in turns %}
  {% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
  {% endif %}
  {% if loop.index0 == 0 and system != false %}
    {% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + turn['content'] %}
  {% else %}{% set content = turn['content'] %}{% endif %}
  {% if turn['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
  {% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}
{% endfor %}""",
    "headers": """{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if loop.first %}{{- "Today: " + date_string + '\\n' }}{%- endif %}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if tools is not none %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "tools": """{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
                    {%- else %}{{- '"' + key + '": ' + val | tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}{{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function | tojson %}
            {{- out[:-1] ~ ', "id": "' ~ call.id ~ '"}' }}
        {%- endfor %}{{- "]" + eos_token }}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"] | trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string + "}[/TOOL_RESULTS]" }}
    {%- elif message["role"] != "system" %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if message['role'] == 'assistant' %}{% set role = 'model' %}
{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}""",
    "phi": """{% for message in messages %}{% if message['role'] == 'system' %}
{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}
{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}
{% generation %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endgeneration %}
{% endif %}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "namespaces": """{%- set ns = namespace(last=-1, found=[], seen='') %}
{%- for message in messages[::-1] %}
    {%- set index = messages | length - 1 - loop.index0 %}
    {%- if message.role == 'user' %}{%- set ns.last = index %}{%- break %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if not message.content %}{%- continue %}{%- endif %}
    {%- set ns.found = ns.found + [message.role] %}
    {%- set ns.seen = ns.seen ~ loop.index ~ ';' %}
    {%- if '</think>' in message.content %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
    {%- else %}{%- set content = message.content %}{%- endif %}
    {%- if loop.index0 > ns.last %}{{- 'NEW ' }}{%- endif %}
    {{- message.role.upper() ~ ': ' ~ content.replace('\\n', ' ').title() }}
    {%- if message.reasoning_content %}{{- ' (' ~ message.reasoning_content ~ ')' }}{%- endif %}
    {{- '\\n' }}
{%- endfor %}
{{- ns.found | join(',') ~ ns.seen ~ pad_token ~ missing ~ (none | default('x', true)) }}
{{- {'b': [1, 2.5, none, true], 'a': '<é&\\'"'} | tojson }}
{{- [3, 1, 2] | sort | first }}{{ '%s-%03d' % ('a', 7) }}{{ "{:>4}".format("z") }}
{{- 7 ** 2 * 2 }}""",
    "macros": """{%- macro line(role, text='none') -%}
<{{ role }}>{{ text | indent(2) }}{{ caller() if caller else '' }}
{% endmacro %}
{% block body %}
{% for message in messages recursive %}
{% call line(message.role, message.content) %}#{{ loop.index }}/{{ loop.length }}{% endcall %}
{% endfor %}
{% endblock %}
{% set tail %}{% filter upper %}end {{ messages | map(attribute='role') | unique | join('+') }}
{% endfilter %}{% endset %}{{ tail }}
{%- for item in range(3) if item != 1 %}{{ item }}{{ loop.cycle('a', 'b') }}{% else %}no{% endfor %}
{{- messages | map('length') | sum }}{{ cycler('x', 'y').next() }}
{%- for group, items in messages | groupby('role') %}{{ group }}{{ items | length }}{% endfor %}
{{- ('a', 'b') + ('c',) }}{{ dict(a=[1]) }}{{ messages[-1].items() | list | tojson }}
""",
}

CHATS = {
    "turns": [
        {"role": "user", "content": " Hi <there> & 'you'\n"},
        {"role": "assistant", "content": "Hello ü 😀 {{ not_code }}"},
        {"role": "user", "content": "Bye"},
    ],
    "system": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 2+2?"},
    ],
    "calls": [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "a1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Zürich"}},
                }
            ],
        },
        {"role": "tool", "content": "21.5", "tool_call_id": "a1"},
    ],
    "thoughts": [
        {"role": "user", "content": "Think"},
        {"role": "assistant", "content": "<think>a</think>\nyes", "reasoning": "because"},
        {"role": "user", "content": "so?", "name": None},
    ],
    "prefill": [
        {"role": "user", "content": "Count"},
        {"role": "assistant", "content": "one, two, "},
    ],
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather <now> & then",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


@pytest.fixture(scope="module")
def reference(kinds):
    """transformers' rendering, or None where it refuses."""
    chat_templates = pytest.importorskip("transformers.utils.chat_template_utils")
    from transformers import PreTrainedTokenizerFast

    class Now(datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW

    before, chat_templates.datetime = chat_templates.datetime, Now
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=kinds.raw["byte_level"](), **SPECIAL)

    def render(source, messages, **options):
        try:
            return tokenizer.apply_chat_template(
                messages, chat_template=source, tokenize=False, **options
            )
        except Exception:
            return None

    yield render
    chat_templates.datetime = before


@functools.cache
def compiled(source):
    return ChatTemplate({"default": source}, SPECIAL, now=lambda: NOW)


def ours(source, messages, **options):
    try:
        return compiled(source).render(messages, **options)
    except RequestError:
        return None


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("style", STYLES)
def test_renders_as_transformers_does(reference, style, chat):
    source, messages = STYLES[style], CHATS[chat]
    for options in (
        {"add_generation_prompt": True},
        {"add_generation_prompt": False},
        {"add_generation_prompt": True, "tools": TOOLS},
        {"add_generation_prompt": True, "tools": []},
    ):
        assert ours(source, messages, **options) == reference(source, messages, **options)


@pytest.mark.parametrize("chat", ["prefill", "turns", "calls"])
@pytest.mark.parametrize("style", STYLES)
def test_continues_as_transformers_does(reference, style, chat):
    source, messages = STYLES[style], CHATS[chat]
    expected = reference(source, messages, continue_final_message=True, add_generation_prompt=False)
    if expected is not None:  # it leaves its mark where a template writes a message twice
        expected = expected.replace("CONTINUE_FINAL_MESSAGE_TAG ", "")
    assert ours(source, messages, continue_final_message=True) == expected


def test_every_style_renders_something(reference):
    for source in STYLES.values():
        rendered = [reference(source, chat, tools=TOOLS) for chat in CHATS.values()]
        assert sum(text is not None for text in rendered) >= 2


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "system", "tool"]),
            "content": st.one_of(st.none(), st.text(max_size=20)),
        }
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=50)
@given(messages=MESSAGES)
@pytest.mark.parametrize("style", STYLES)
def test_any_messages(reference, style, messages):
    source = STYLES[style]
    assert ours(source, messages, add_generation_prompt=True) == reference(
        source, messages, add_generation_prompt=True
    )


def render(source, messages=CHATS["turns"], **options):
    return ChatTemplate({"default": source}, SPECIAL).render(messages, **options)


def refusal(source, messages=CHATS["turns"], **options):
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
    chat = json.loads(json.dumps(CHATS["thoughts"]))
    render(STYLES["chatml"], chat, continue_final_message=True)
    assert chat == CHATS["thoughts"]


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


# --- what bounds a render -------------------------------------------------------------------------

GROW = (
    "{% set ns = namespace(x=START) %}"
    "{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"
)
BIG = "{% set x = 'a' * 1000000 %}"
HOSTILE = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "filtered": "{% for a in range(9999) %}{% for b in range(9999) if 0 %}{% endfor %}{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n-1) ~ m(n-1) }}{% endif %}{% endmacro %}{{ m(99) }}",
    "maps": "{% for a in range(99999) %}{{ range(9999) | map('string') | list }}{% endfor %}",
    "contains": "{% set x = 'a' * 7000000 %}{% for a in range(99999) %}{{ 'ab' in x }}{% endfor %}",
    "output": BIG + "{% for i in range(99999) %}{{ x }}{% endfor %}",
    "ranges": "{{ range(10**9) }}",
    "times": "{{ 'a' * 10**12 }}",
    "times list": "{{ 10**12 * [1] }}",
    "power": "{{ 10**(10**10) }}",
    "squares": GROW.replace("START", "9").replace("STEP", "ns.x * ns.x"),
    "tildes": GROW.replace("START", "'a'").replace("STEP", "ns.x ~ ns.x"),
    "sums": GROW.replace("START", "'a'").replace("STEP", "ns.x + ns.x"),
    "lists": GROW.replace("START", "[1]").replace("STEP", "ns.x + ns.x"),
    "tuples": GROW.replace("START", "(1,)").replace("STEP", "ns.x + ns.x"),
    "nested lists": GROW.replace("START", "1").replace("STEP", "[ns.x, ns.x]"),
    "nested tuples": GROW.replace("START", "1").replace("STEP", "(ns.x, ns.x)"),
    "nested dicts": GROW.replace("START", "1").replace("STEP", "{'a': ns.x, 'b': ns.x}"),
    "dict calls": GROW.replace("START", "1").replace("STEP", "dict(a=ns.x, b=ns.x)"),
    "batches": GROW.replace("START", "[1]").replace("STEP", "(ns.x + ns.x) | batch(2) | list"),
    "blocks": GROW.replace(
        "{% set ns.x = STEP %}", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"
    ).replace("START", "1"),
    "memory": GROW.replace("START", "[]").replace("STEP", "ns.x + ['a' * 99999 ~ i]"),
    "center": "{{ 'a' | center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "percent": "{{ '%0100000000d' % 3 }}",
    "star": "{{ '%*d' % (10**10, 3) }}",
    "many": BIG + "{{ ('%(a)s' * 1000) % {'a': x} }}",
    "format filter": "{{ '%0100000000d' | format(3) }}",
    "braces": "{{ '{:>1000000000}'.format('a') }}",
    "nested braces": "{{ '{:>{}}'.format('a', 10**10) }}",
    "format map": BIG + "{{ ('{a}' * 1000).format_map({'a': x}) }}",
    "replace": BIG + "{{ x.replace('a', x) }}",
    "replace nothing": BIG + "{{ x.replace('', x) }}",
    "replace filter": BIG + "{{ x | replace('a', x) }}",
    "join": BIG + "{{ x.join(range(99999) | map('string')) }}",
    "join filter": BIG + "{{ range(99999) | join(x) }}",
    "indent": "{{ 'a\\nb' | indent(10**10) }}",
    "indent text": BIG.replace("'a'", "'\\n'") + "{{ x | indent('a' * 99999, true, true) }}",
    "json indent": "{{ messages | tojson(indent=10**9) }}",
    "json separators": BIG + "{{ messages | tojson(separators=(x, x)) }}",
    "json depth": GROW.replace("START", "range(99999) | list")
    .replace("STEP", "[ns.x]")
    .replace("{{ ns.x }}", "{{ ns.x | tojson(indent=4) }}"),
    "adding lists": "{{ range(99999) | map('string') | map('list') | sum(start=[]) }}",
    "round": "{{ 1.5 | round(10**9) }}",
    "slice": "{{ [1] | slice(10**9) | list }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list }}",
    "translate": "{{ 'a'.translate({97: 'b' * 100}) }}",
    "tabs": "{{ '\\t'.expandtabs(10**10) }}",
    "bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "encode": "{{ 'a'.encode() }}",
    "lipsum": "{{ lipsum(n=99999) }}",
    "dates": "{{ strftime_now('%Y' * 99999) }}",
    "date width": "{{ strftime_now('%1000000000d') }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_stopped(name):
    limits = RenderLimits(steps=200_000, cpu_s=0.5)
    template = ChatTemplate({"default": HOSTILE[name]}, limits=limits)
    with pytest.raises(RequestError) as caught:
        template.render(CHATS["turns"])
    assert caught.value.kind is ErrorKind.TEMPLATE


def test_the_clock_alone_is_enough():
    ticks = iter(range(10**9))
    meter = Meter(RenderLimits(cpu_s=100), cpu_clock=lambda: float(next(ticks)))
    steps = (meter.step() for _ in range(10_000))
    with pytest.raises(LimitExceededError, match="100 s"):
        list(steps)


def test_namespaces_in_namespaces_print_nothing_of_themselves():
    step = "namespace(a=ns.x, b=ns.x)"
    assert render(GROW.replace("START", "1").replace("STEP", step)) == "<Namespace>"


def test_long_conversations_are_not_stopped():
    chat = [{"role": "user", "content": "word " * 20}] * 5000
    chat[1::2] = [{"role": "assistant", "content": "reply " * 20}] * 2500
    for style in ("chatml", "namespaces", "headers", "macros"):
        assert render(STYLES[style], chat)
    assert render(STYLES["chatml"], [{"role": "user", "content": "x" * 7_000_000}])


# --- where templates come from ----------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    def write(**files):
        for path in tmp_path.glob("*.*"):
            path.unlink()
        for name, content in files.items():
            if name == "jinja":
                (tmp_path / "chat_template.jinja").write_text(content, encoding="utf-8")
            else:
                (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def loaded(path, given=None, **options):
    template = ChatTemplate.load(path, given)
    return None if template is None else template.render(CHATS["turns"], **options)


def test_sources_in_order(model, tmp_path_factory):
    config = {"chat_template": "config {{ eos_token }}", "eos_token": {"content": "E"}}
    assert loaded(model()) is None
    assert loaded(model(tokenizer_config={"bos_token": "<s>"})) is None
    assert loaded(model(tokenizer_config=config)) == "config E"
    both = {"tokenizer_config": config, "chat_template": {"chat_template": "json {{ eos_token }}"}}
    assert loaded(model(**both)) == "json E"
    assert loaded(model(**both, jinja="file {{ eos_token }}")) == "file E"
    given = tmp_path_factory.mktemp("given") / "mine.json"
    given.write_text('{"chat_template": "given {{ eos_token }}", "eos_token": "G"}')
    assert loaded(model(**both, jinja="file"), given) == "given G"
    given.write_text('{"eos_token": "G"}')
    assert loaded(model(**both, jinja="file {{ eos_token }}"), given) == "file G"


def test_named_templates(model):
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    path = model(tokenizer_config={"chat_template": named})
    assert loaded(path) == "plain"
    assert loaded(path, tools=TOOLS) == "tools"
    assert loaded(path, tools=[]) == "tools"  # as transformers
    path = model(tokenizer_config={"chat_template": named[:1]})
    assert loaded(path, tools=TOOLS) == "plain"
    path = model(tokenizer_config={"chat_template": named[1:]})
    with pytest.raises(RequestError, match="default"):
        loaded(path)


def test_additional_templates(model):
    path = model(jinja="plain")
    (path / "additional_chat_templates").mkdir()
    (path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert loaded(path) == "plain"
    assert loaded(path, tools=TOOLS) == "tools"


@pytest.mark.parametrize(
    "files",
    [
        {"jinja": "a\n{% if %}"},
        {"jinja": "{{ 'open }}"},
        {"jinja": "{{ x | no_such_filter }}"},
        {"jinja": "{% for x in y %}"},
        {"jinja": "{% break %}"},
        {"jinja": "{{ " + "(" * 5000 + ")" * 5000 + " }}"},
        {"tokenizer_config": {"chat_template": 3}},
        {"tokenizer_config": {"chat_template": [{"name": "default"}]}},
        {"chat_template": {"chat_template": "{% endif %}"}},
    ],
)
def test_broken_templates_stop_the_start(model, files):
    with pytest.raises(StartupError, match=r"chat.template"):
        ChatTemplate.load(model(**files))


def test_syntax_errors_name_the_line(model):
    with pytest.raises(StartupError, match=r"chat_template\.jinja has an error in line 2"):
        ChatTemplate.load(model(jinja="a\n{% if %}"))
