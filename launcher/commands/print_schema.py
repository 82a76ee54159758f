"""``millrace print-schema``: the OpenAPI document, which only front ends know."""

import subprocess
import sys
from collections.abc import Sequence

from launcher.arguments import parse_arguments
from launcher.children import child_environment
from launcher.commands.flags import answered
from launcher.resolve import UsageError


def run(arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Print it. It is the same for all settings."""
    line = parse_arguments(arguments)
    if answered(line, "print-schema"):
        return 0
    if line.given:
        raise UsageError(f"print-schema takes no flags: {line.given[0].flag} has no meaning")
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "frontend.openapi"],
        env=child_environment(environ),
        check=False,
    )
    return answer.returncode
