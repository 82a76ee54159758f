"""``millrace download MODEL``: fetch and verify, so that a later start needs no network."""

from collections.abc import Sequence

from launcher import adapters
from launcher.arguments import parse_arguments
from launcher.commands.flags import LOGGER, answered, settle, tell, tokenizers
from launcher.model import find, make_ready, weights_of
from launcher.resolve import Given


def run(arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Print the model's directory when it is complete. What has arrived is never fetched twice."""
    named = [Given("model_id", "MODEL", word) for word in arguments[:1] if word[:1] != "-"]
    line = parse_arguments(arguments[len(named) :])
    if answered(line, "download"):
        return 0
    line.given[:0] = named
    resolution = settle(line, environ)
    tell(resolution)
    model = find(resolution, environ, LOGGER.info)
    LOGGER.info("weights are %s", weights_of(model, resolution))
    for adapter in adapters.find(resolution, environ, LOGGER.info):
        LOGGER.info("the adapter %s is in %s", adapter.name, adapter.directory)
    print(make_ready(model, lambda: [tokenizers(resolution, environ)], LOGGER.info))
    return 0
