"""Short requests one after the other, on connections that are made anew or kept."""

import http.client
import json
import threading
import time
from collections import Counter

from tests.chaos.scene import Scene

SHORT = json.dumps({"inputs": "Hello", "parameters": {"max_new_tokens": 2}})
JSON = {"content-type": "application/json"}
REFUSED = {"ConnectionRefusedError"}
CUT = {"RemoteDisconnected", "BrokenPipeError", "ConnectionResetError"}
"""An idle connection was closed while the client wrote: nothing was begun, nothing answered."""
RETRY_S = 0.05


class Knocker:
    """Asks until told to stop; counts how the requests ended."""

    def __init__(self, made: Scene, *, keeps: bool, hesitates_s: float = 0.0) -> None:
        """``keeps`` its connection for the next request, as long as the server lets it.

        One that hesitates is connected for a while before it asks.
        """
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self._connection = http.client.HTTPConnection("127.0.0.1", made.server.port, timeout=60)
        self._hesitates_s = hesitates_s
        self.keeps = keeps
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(90)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                if self._hesitates_s and self._connection.sock is None:
                    self._connection.connect()
                    time.sleep(self._hesitates_s)
                self._connection.request("POST", "/generate", SHORT, JSON)
                answer = self._connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.status
                self.answered += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failed[type(error).__name__] += 1
                self._connection.close()
                self._over.wait(RETRY_S)
            if not self.keeps:
                self._connection.close()
