"""Hostile templates and inputs: what bounds a render, and what the bounds leave alone."""

import functools

import pytest

from common.errors import ErrorKind, RequestError
from frontend.text.meter import LimitExceededError, Meter, RenderLimits
from frontend.text.template import ChatTemplate
from tests.frontend.text.rendering import SPECIAL, STYLES

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def render(source, messages=TURNS, **options):
    return ChatTemplate({"default": source}, SPECIAL).render(messages, **options)


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
    "dict updates": GROW.replace("START", "{}").replace("STEP", "dict.update(ns.x, {i: ns.x})"),
    "dict keys": GROW.replace("START", "1").replace("STEP", "dict.fromkeys([1, 2], [ns.x, ns.x])"),
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
    limits = RenderLimits(steps=50_000, cpu_s=0.2)
    template = ChatTemplate({"default": HOSTILE[name]}, limits=limits)
    with pytest.raises(RequestError) as caught:
        template.render(TURNS)
    assert caught.value.kind is ErrorKind.TEMPLATE


def test_what_is_tried_at_the_start_is_bounded_too():
    source = (
        "{% for _ in range(999) %}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    for steps, known in ((100, False), (2000, True)):
        template = ChatTemplate({"default": source}, limits=RenderLimits(steps=steps))
        assert template.knows_role("cat") == known


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
    for style in ("chatml", "loopcontrols", "llama3", "qwen3", "generation"):
        assert render(STYLES[style], chat)
    assert render(STYLES["chatml"], [{"role": "user", "content": "x" * 7_000_000}])


HOSTILE_TEXTS = {
    "{{ messages[0].content.format('a') }}": "{:>1000000000}",
    "{{ messages[0].content.format(messages) }}": "{0.__class__.__mro__}",
    "{{ messages[0].content % 1 }}": "%1000000000d",
    "{{ strftime_now(messages[0].content) }}": "%1000000000d",
    "{{ range(messages[0].content | int) | list }}": "1" * 12,
    "{{ 'a' * (messages[0].content | int) }}": "9" * 12,
    "{{ 2 ** (messages[0].content | int) }}": "9" * 12,
    "{{ messages[0].content | int }}": "9" * 100_000,
    "{{ messages | tojson(indent=messages[0].content | int) }}": "9" * 9,
    "{{ messages[0].content.replace('a', messages[0].content) }}": "a" * 100_000,
    "{{ messages[0].content | replace('', messages[0].content) }}": "a" * 100_000,
    "{{ messages[0].content | indent(9999) }}": "\n" * 100_000,
    "{{ messages[0].content.join(messages[0].content) }}": "a" * 100_000,
}


def outcome(template, *args, **options):
    """The text, or else the error's kind; whose message is never long."""
    try:
        return template.render(*args, **options)
    except RequestError as error:
        return error.kind if len(error.message) < 1000 else error.message


@pytest.mark.parametrize("source", HOSTILE_TEXTS)
def test_hostile_texts_are_stopped_or_harmless(source):
    chat = [{"role": "user", "content": HOSTILE_TEXTS[source]}]
    template = ChatTemplate({"default": source}, limits=RenderLimits(cpu_s=1.0))
    assert outcome(template, chat) in (ErrorKind.TEMPLATE, "0")  # 0: no number for ``int``


DEEP = {"type": "object", "properties": {}}
for _ in range(150):
    DEEP = {"type": "array", "items": DEEP, "description": "d"}
WIDE = {"type": "object", "properties": {str(i): {"type": "string"} for i in range(3000)}}


@pytest.mark.parametrize("style", [style for style in STYLES if "tools" in STYLES[style]])
@pytest.mark.parametrize("schema", [DEEP, WIDE], ids=["deep", "wide"])
def test_hostile_tools_are_stopped_or_rendered(style, schema):
    template = ChatTemplate({"default": STYLES[style]}, SPECIAL)
    parameters = {"type": "object", "properties": {"a": schema, "b": schema}}
    function = {"name": "f", "description": "", "parameters": parameters}
    found = outcome(template, TURNS, tools=[{"type": "function", "function": function}])
    assert found is ErrorKind.TEMPLATE or "f" in found


@pytest.mark.parametrize(
    "value", [[[]] * 700_000, [{"": 0}] * 300_000, 5000], ids=["lists", "dicts", "deep"]
)
def test_giving_a_template_its_input_is_bounded_too(value):
    if isinstance(value, int):
        value = functools.reduce(lambda inner, _: [inner], range(value), [])
    template = ChatTemplate({"default": "{{ x | length }}"}, limits=RenderLimits(cpu_s=0.1))
    assert outcome(template, TURNS, template_kwargs={"x": value}) is ErrorKind.TEMPLATE
