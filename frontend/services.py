"""What every route needs, in one hand: built once per process, by the server or by a test."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from common.settings import Settings
from frontend.express import Outbox
from frontend.guidance.source import Grammars
from frontend.links import Links
from frontend.pool import Offload
from frontend.text.template import ChatTemplate
from frontend.text.tokenizer import Tokenizer
from frontend.text.tools.detected import OutputStyle
from frontend.tracing import RequestTracer
from frontend.watch import Watcher


@dataclass(frozen=True)
class Services:
    """The collaborators of the routes."""

    settings: Settings
    link: Links
    tokenizer: Tokenizer
    template: ChatTemplate | None
    style: OutputStyle
    offload: Offload
    watcher: Watcher
    grammars: Grammars
    version: str = "0.0.0"
    tracer: RequestTracer | None = None
    """None while no traces are sent."""
    outbox: Outbox = field(default_factory=Outbox)
    """Flushed by whoever receives the tokens."""
    clock: Callable[[], float] = field(default=time.monotonic)
    """Seconds, monotonic."""
    wall_clock: Callable[[], float] = field(default=time.time)
    """Seconds since the epoch, for ``created``."""

    def adapter(self, name: str | None) -> str:
        """The digest of the adapter of that name; empty, the model alone, for any other name."""
        found = (adapter.digest for adapter in self.settings.adapters if adapter.name == name)
        return next(found, "")
