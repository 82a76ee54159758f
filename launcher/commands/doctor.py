"""``millrace doctor``: what is wrong with machine, model or settings. Status 1 if something is."""

from collections.abc import Sequence

from launcher.arguments import parse_arguments
from launcher.commands.flags import answered
from launcher.doctor.examination import examine
from launcher.doctor.finding import as_json, shown

_JSON = "--json"


def run(arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Look, and tell. Takes the flags of the server, and ``--json``."""
    line = parse_arguments([word for word in arguments if word != _JSON])
    if answered(line, "doctor"):
        return 0
    findings = list(examine(line.given, environ))
    print(as_json(findings) if _JSON in arguments else shown(findings), flush=True)
    return int(any(finding.level == "problem" for finding in findings))
