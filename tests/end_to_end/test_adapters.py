"""Adapters over HTTP: chosen by name, streamed beside each other, kept when a worker dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.harness import Server, running, together
from tests.end_to_end.reference import Reference
from tests.worker.adapters import write_adapter
from tests.worker.tiny import write_tiny_llama

PROMPT = "The same prompt for all of them, and longer than one block of keys and values."
TOKENS = 40
SLOW = "@@ takes its time"
FAULTS = "test-only:slow=0.05@64,64"
"""Steps of prompts with two such bytes: long enough for a worker to die within."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model ``base``, adapters ``a`` and ``b``, and what they make of it: ``a-merged`` …"""
    home = tmp_path_factory.mktemp("adapters")
    write_tiny_llama(home / "base")
    write_adapter(home / "a", home / "base", seed=1, merged=home / "a-merged")
    write_adapter(
        home / "b", home / "base", targets="q_proj|down", rank=8, seed=2, merged=home / "b-merged"
    )
    return home


@pytest.fixture(scope="module")
def truth(models: Path) -> dict[str, list[int]]:
    """What the merged models say in transformers, by the adapter's name; "" is the base's."""
    found = {}
    for name, directory in (("", "base"), ("a", "a-merged"), ("b", "b-merged")):
        reference = Reference(models / directory)
        found[name] = reference.greedy(reference.ids(PROMPT), TOKENS).ids
    assert len(set(map(tuple, found.values()))) == 3
    return found


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    adapters = f"a={models / 'a'},b={models / 'b'}"
    with running(
        "--model-id", str(models / "base"), "--dtype", "float32", "--lora-adapters", adapters,
        env={"MILLRACE_DEBUG_FAULTS": FAULTS},
    ) as started:  # fmt: skip
        yield started


def said(server: Server, **chosen: str) -> tuple[list[int], str]:
    """Ids and text of an answer."""
    answer = server.generate(PROMPT, max_new_tokens=TOKENS, details=True, **chosen)
    return [token["id"] for token in answer["details"]["tokens"]], answer["generated_text"]


def test_the_name_chooses(server: Server, truth: dict[str, list[int]]) -> None:
    for _ in range(2):  # the second time from the prefix cache
        for name, wanted in truth.items():
            ids, text = said(server, **({"adapter_id": name} if name else {}))
            assert ids == wanted
            body = {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "model": name}
            completion = server.post("/v1/completions", body).json()
            assert completion["choices"][0]["text"] == text
    assert said(server, adapter_id="nobody")[0] == truth[""]


def test_every_chat_surface_takes_it(server: Server) -> None:
    answers = {}
    for name in ("tgi", "a", "b"):
        messages = [{"role": "user", "content": PROMPT}]
        body = {"model": name, "messages": messages, "temperature": 0, "max_tokens": 20}
        chat = server.post("/v1/chat/completions", body).json()
        answer = server.post("/v1/messages", body).json()
        given = {"model": name, "input": PROMPT, "temperature": 0, "max_output_tokens": 20}
        response = server.post("/v1/responses", given).json()
        texts = {
            chat["choices"][0]["message"]["content"],
            answer["content"][0]["text"],
            response["output"][0]["content"][0]["text"],
        }
        assert len(texts) == 1
        answers[name] = texts.pop()
    assert len(set(answers.values())) == 3


def test_models_lists_them(server: Server) -> None:
    base, *adapters = server.get("/v1/models").json()["data"]
    assert "parent" not in base
    assert [(one["id"], one["parent"]) for one in adapters] == [
        ("a", base["id"]),
        ("b", base["id"]),
    ]
    assert server.get("/v1/models/a").json() == adapters[0]
    names = [name for name in server.metrics() if name.startswith("millrace_lora_requests_info")]
    assert len(names) == 1
    assert 'max_lora="2"' in names[0]


def test_streams_go_on_when_the_worker_dies(server: Server) -> None:
    def body(name: str) -> dict[str, object]:
        chosen = {"adapter_id": name} if name else {}
        return {"inputs": SLOW, "parameters": {"max_new_tokens": TOKENS, **chosen}}

    def stream(i: int) -> str:
        if i == len(names):
            server.until(lambda: server.metrics()["tgi_batch_current_size"] == len(names))
            os.kill(worker, signal.SIGKILL)
            return ""
        return str(server.post("/generate_stream", body(names[i])).events()[-1]["generated_text"])

    names = ["", "a", "b"]
    (worker,) = server.pids("-m worker")
    expected = [server.post("/generate", body(name)).json()["generated_text"] for name in names]
    assert len(set(expected)) == len(names)
    assert together(len(names) + 1, stream)[:-1] == expected
    assert server.pids("-m worker") != [worker]
