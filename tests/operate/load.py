"""Uses a server in every way that a metric counts.

Runs in the tests' process. Knows the API, nothing of metrics.
"""

import http.client
import json

from tests.end_to_end.harness import Server, together


def use(server: Server) -> None:
    """Answers, streams, joins running sequences, refuses, and leaves."""
    together(6, lambda i: server.generate(f"Count to {i}:", max_new_tokens=60, seed=i + 1))
    streamed = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 120}}
    together(8, lambda i: server.post("/generate_stream", streamed))
    assert server.post("/generate", {"inputs": ""}).status == 422
    leave(server, "/generate_stream", streamed | {"parameters": {"max_new_tokens": 900}})
    server.until(lambda: server.metrics()["millrace_live_sequences"] == 0)


def leave(server: Server, path: str, body: object) -> None:
    """Hang up after the first bytes of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    connection.getresponse().read(10)
    connection.close()
