"""``millrace replace-worker``: a new worker in the place of one that runs; requests go on."""

import argparse
from collections.abc import Sequence

from launcher.commands.own_flags import Parser, whole
from launcher.replace import find_server, replace


def run(arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Replace it; returns when the new one is ready."""
    options = _parser().parse_args(arguments)
    replace(find_server(options.runtime_dir), options.replica, lambda text: print(text, flush=True))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "replace-worker",
        "Empties a worker of a running server, stops it, and starts a new one in its place. Its "
        "requests go on, on other replicas or on the new worker.",
    )
    parser.add_argument(
        "--replica", type=whole, default=0, metavar="N", help="which one; 0 if not said"
    )
    parser.add_argument(
        "--runtime-dir",
        metavar="PATH",
        help="of the server, if it was started with one or several are running",
    )
    return parser
