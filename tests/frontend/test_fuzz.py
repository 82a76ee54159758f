"""Whatever a client sends to any route: an answer in its surface's words, and nothing left behind.

What the model writes is as odd as what the client sends, since a prompt can ask for it.
"""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common.messages import SequenceSpec
from frontend.openapi.operations import OPERATIONS
from frontend.openapi.operations.operation import Operation
from frontend.schema import messages, openai
from tests.frontend.drawn import Drawer, words_of
from tests.frontend.fakes import serve, write_model
from tests.frontend.full_requests import BROKEN_ONCE, FULL
from tests.frontend.fuzz_target import Target
from tests.frontend.mutations import MARK, mutated, tree, write
from tests.frontend.openapi.strict import operation
from tests.frontend.routes import routes

FUZZ = settings(
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
REQUESTS = 400
"""Of each route, made of right ones."""
WRITES = [pytest.param(one, id=one.path) for one in OPERATIONS if one.method == "post"]
THINKING = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% if m.tool_calls %}[TOOL_CALLS]{{ m.tool_calls | tojson }}{% endif %}"
    "{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{{ documents }}"
    "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
)
"""Of a model whose answers begin with reasoning, and that wants short ids of calls."""
REPLIES = (
    " hello world",
    f"<think>{MARK}</think> hello",
    'a</think>[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "\\ud800"}}, {"na',
    '{"name": "get_weather", "arguments": {"city": "Paris"}}',
    '{"name": "get_weather", "arguments": {"city": "Par',
    '{"name": "\\ud800", "arguments": {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[',
    '{"name": "get_weather", "arguments": "{\\"city\\": \\"\\\\u',
    f"<|channel|>analysis<|message|>{MARK}<|end|><|start|>assistant<|channel|>commentary"
    ' to=functions.get_weather <|constrain|>json<|message|>{"city": "\\ud800"}<|call|>',
    '<|message|><|start|><|channel|>commentary to=functions.get_weather<|message|>{"a<|end|>',
    "data: [DONE]\n\ndata: {}\r\n\x00\x1b[31m",
    "é",
)


@pytest.fixture(scope="module")
def targets(
    tmp_path_factory: pytest.TempPathFactory, model_dir: Path, channels_dir: Path
) -> Iterator[list[Target]]:
    """An ordinary server, one of TGI's dialect, two whose models think, one without chat."""
    thinking = write_model(tmp_path_factory.mktemp("thinking") / "model", template=THINKING)
    servers = [
        serve(model_dir),
        serve(model_dir, messages_api_dialect="tgi", enable_prefill_logprobs=True),
        serve(thinking, enable_prefill_logprobs=True),
        serve(channels_dir),
        serve(model_dir, template=False),
    ]
    found = []
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    for server in servers:
        tokenizer = server.services.tokenizer
        replies = [tokenizer.encode(text, add_special_tokens=False) for text in REPLIES]

        def reply(spec: SequenceSpec, replies: list[list[int]] = replies) -> list[int]:
            if not spec.stop_token_ids:  # then only its length ends it
                return replies[0] * spec.max_new_tokens
            return replies[(sum(spec.prompt_ids) + spec.max_new_tokens) % len(replies)]

        server.pipeline.reply = reply
        server.pipeline.per_message = 3
        target = Target(server)
        root.addHandler(target.log)
        found.append(target)
    yield found
    for target in found:
        root.removeHandler(target.log)
        target.server.services.offload.close()
        target.server.services.watcher.close()
    root.setLevel(level)


DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_every_post_route_is_fuzzed(targets: list[Target]) -> None:
    found = {path for path, methods in routes(targets[0].server) if "POST" in methods}
    fuzzed = {re.sub(r"\{[^}]*\}", "any", one.path) for one in OPERATIONS if one.method == "post"}
    assert found == fuzzed


@pytest.mark.parametrize("one", WRITES)
def test_examples_are_right(targets: list[Target], one: Operation) -> None:
    """What is changed below is worth changing."""
    assert one.examples
    documents = [*(example.value for example in one.examples), *FULL.get(one.path, [])]
    for target in targets[:4]:
        for document in documents:
            target.send(one, json.dumps(document).encode())


@pytest.mark.parametrize("one", WRITES)
def test_bytes(targets: list[Target], one: Operation) -> None:
    @settings(FUZZ, max_examples=30)
    @given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode()))
    def fuzz(body: bytes) -> None:
        targets[0].send(one, body)

    fuzz()


@pytest.mark.parametrize("one", WRITES)
def test_documents(targets: list[Target], one: Operation) -> None:
    names = names_of(one)

    @settings(FUZZ, max_examples=40)
    @given(DOCUMENTS | st.dictionaries(st.sampled_from(names), DOCUMENTS, min_size=1))
    def fuzz(document: Any) -> None:
        targets[0].send(one, json.dumps(document).encode())

    fuzz()


@pytest.mark.parametrize("one", WRITES)
def test_right_requests_made_wrong(targets: list[Target], one: Operation) -> None:
    names = names_of(one)
    examples = [*(example.value for example in one.examples), *FULL.get(one.path, [])]
    words = [*words_of(examples), f"hello {MARK}"]

    for seed in range(REQUESTS):
        random = Random(seed)
        if random.random() < 0.7:
            document, changes = random.choice(examples), random.randint(1, 3)
        else:
            document = Drawer(random, words).draw(random.choice(one.bodies))
            changes = random.choice([0, 0, 1])
        if "stream" in names and random.random() < 0.4:
            document = {**document, "stream": True}
        body = mutated(random, document, names, changes)
        try:
            random.choice(targets).send(one, body)
        except Exception as error:
            error.add_note(f"seed {seed}, {len(body)} bytes: {body[:1000]!r}")
            raise


def names_of(one: Operation) -> list[str]:
    """The keys that the bodies of an operation and what is in them know."""
    _, components = msgspec.json.schema_components(one.bodies)
    names = {name for part in components.values() for name in part.get("properties", {})}
    return sorted(names | openai.UNSUPPORTED.keys() | messages.UNSUPPORTED.keys())


@pytest.mark.parametrize("name", BROKEN_ONCE)
def test_what_once_broke(targets: list[Target], name: str) -> None:
    path, document = BROKEN_ONCE[name]
    for target in targets:
        target.send(operation("post", path), write(tree(document)))


HEADERS = (
    "Content-Type",
    "X-Request-Timeout",
    "X-Request-Timeout-Ms",
    "X-Request-Id",
    "Traceparent",
    "Origin",
    "Transfer-Encoding",
    "Anthropic-Beta",
    "Authorization",
)
VALUES = (
    *(
        "",
        " ",
        "0",
        "-1",
        "1e9",
        "nan",
        "0.000000000001",
        "9" * 40,
        "1000000",
        "\xff\xfe",
        "a" * 9000,
    ),
    *("application/json; charset=\xe9", "application/x+json", "application/", "00-0-0-00"),
    *("chunked", "*", "null", "a,b,,c", "a\tb", "Bearer", "٣"),
)


@pytest.mark.parametrize("one", WRITES)
def test_headers(targets: list[Target], one: Operation) -> None:
    body = json.dumps(one.examples[0].value).encode()
    values = st.sampled_from([value for value in VALUES if value.isascii() or max(value) <= "\xff"])

    @settings(FUZZ, max_examples=25)
    @given(st.dictionaries(st.sampled_from(HEADERS), values, max_size=4))
    def fuzz(headers: dict[str, str]) -> None:
        targets[0].send(one, body, headers)

    fuzz()
