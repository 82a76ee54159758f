"""How a library is put under load from outside: lines of JSON over standard input and output.

A driver says ``{"ready": …}`` once its model is loaded, then answers each line of work
``{"prompts": [text, …], "streams": n, "new_tokens": [n, …]}`` (by prompt) with a line of figures
``{"wall_s", "tokens", "first_s", "gaps_s"}``: seconds, new tokens, and, where the library says,
the seconds to each first token and between tokens. Ends with its input. Runs in the peers'
interpreters.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Run = Callable[[list[str], int, list[int]], dict[str, Any]]
"""prompts, streams, new tokens of each prompt → figures."""


def serve(load: Callable[[], tuple[str, Run]]) -> None:
    """Load, say so (with a word on versions), answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    version, run = load()
    answers.write(json.dumps({"ready": version}) + "\n")
    for line in sys.stdin:
        work = json.loads(line)
        figures = run(work["prompts"], work["streams"], work["new_tokens"])
        answers.write(json.dumps(figures) + "\n")
