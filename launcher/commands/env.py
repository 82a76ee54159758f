"""``millrace env``: versions, devices, and the names in the environment that mean something."""

from collections.abc import Sequence

from launcher.arguments import parse_arguments
from launcher.commands.flags import answered, settle
from launcher.machine import look_around
from launcher.report import environment_report


def run(arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Print them; the settings that were given are checked too."""
    line = parse_arguments(arguments)
    if answered(line, "env"):
        return 0
    settle(line, environ)
    print(environment_report(look_around(environ), environ), flush=True)
    return 0
