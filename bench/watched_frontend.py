"""The real front end, which also writes down what it holds: ``python -m bench.watched_frontend``.

For ``bench.soak``. Every few seconds each process writes its greenlets and live sequences to
``holds-<pid>`` in the runtime directory.
"""

import gc
import json
import os
from pathlib import Path

import gevent
from greenlet import greenlet

from common.settings import load
from frontend.serve import GunicornApplication
from frontend.wiring import FrontEnd

EVERY_S = 5.0


class WatchedApplication(GunicornApplication):
    """As the server's, with one greenlet more."""

    def load(self) -> FrontEnd:
        """Called in each worker."""
        made = super().load()
        gevent.spawn(write_down, made, Path(load().runtime_dir) / f"holds-{os.getpid()}")
        return made


def write_down(front_end: FrontEnd, path: Path) -> None:
    """For as long as the process lives."""
    while True:
        greenlets = sum(isinstance(x, greenlet) and not x.dead for x in gc.get_objects())
        holds = {"greenlets": greenlets, "sequences": front_end._wires.link.live}
        path.with_suffix(".new").write_text(json.dumps(holds))
        path.with_suffix(".new").rename(path)
        gevent.sleep(EVERY_S)


if __name__ == "__main__":
    WatchedApplication().run()
