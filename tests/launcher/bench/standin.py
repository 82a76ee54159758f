"""A small server of streams on localhost that speaks the three interfaces, well or badly."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Standin:
    """How it answers, and what it was asked."""

    counts: bool = True
    """It says how many tokens there were."""
    status: int = 200
    break_off: bool = False
    """Streams end in the middle."""
    error_event: bool = False
    silent: bool = False
    """Headers come, and nothing else."""
    asked: list[tuple[str, Any, str | None]] = field(default_factory=list)
    """(path, body, Authorization)"""
    reached: threading.Event = field(default_factory=threading.Event)
    """A request has come."""
    released: threading.Event = field(default_factory=threading.Event)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Standin

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        found = {"/v1/models": {"data": [{"id": "stand-in"}]}}.get(self.path)
        self._plain(200 if found else 404, found or {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.state.asked.append((self.path, body, self.headers.get("authorization")))
        self.state.reached.set()
        if self.state.status != 200:
            self._plain(self.state.status, {"error": "no room", "error_type": "overloaded"})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        if self.state.silent:
            self.wfile.flush()
            self.state.released.wait(30)
            return
        events = _tgi(body) if self.path == "/generate_stream" else _openai(self.path, body)
        if self.state.break_off:
            events = events[:2]
        if self.state.error_event:
            events = [events[0], {"error": "it broke", "error_type": "generation"}]
        for event in events:
            if event != "[DONE]" and not self.state.counts:
                event = {k: v for k, v in event.items() if k not in ("usage", "details")}
            text = event if event == "[DONE]" else json.dumps(event)
            self.wfile.write(f"data: {text}\n\n".encode())

    def _plain(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _tgi(body: Any) -> list[Any]:
    count = body["parameters"]["max_new_tokens"]
    words = len(body["inputs"].split())
    events: list[Any] = [
        {"token": {"id": 1, "text": "a"}, "generated_text": None, "details": None}
        for _ in range(count)
    ]
    events[-1]["generated_text"] = "a" * count
    events[-1]["details"] = {"generated_tokens": count, "input_length": 2 * words + 1}
    return events


def _openai(path: str, body: Any) -> list[Any]:
    count = body["max_tokens"]
    chat = path == "/v1/chat/completions"
    text = " ".join(m["content"] for m in body["messages"]) if chat else body["prompt"]
    piece: Any = {"delta": {"content": "a"}} if chat else {"text": "a"}
    events: list[Any] = [{"choices": [{**piece, "finish_reason": None}]} for _ in range(count)]
    if chat:
        role = {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        events.insert(0, {"choices": [role]})
        events.append({"choices": [{"delta": {}, "finish_reason": "length"}]})
    else:
        events[-1]["choices"][0]["finish_reason"] = "length"
    usage = {"prompt_tokens": 2 * len(text.split()) + 1, "completion_tokens": count}
    return [*events, {"choices": [], "usage": usage}, "[DONE]"]


@contextmanager
def serving(state: Standin) -> Iterator[str]:
    """The server's address."""
    handler = type("Handler", (_Handler,), {"state": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
