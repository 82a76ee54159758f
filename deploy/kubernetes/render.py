"""``make manifests``: writes ``manifests/``, one file for each of ``values/``.

The chart is the source; the manifests are for those who have no Helm. Needs ``helm-python-sdk``,
which is Helm's own code as a library (``pip install '.[test]'``). With names of values files as
arguments it prints what the chart makes of them instead, as JSON: file name to manifests.
"""

import json
import sys
from pathlib import Path
from typing import Any

import helm_python
import yaml

HERE = Path(__file__).resolve().parent
CHART = HERE / "chart"
RELEASE = "millrace"
NAMESPACE = "millrace"


def rendered(values: dict[str, Any]) -> str:
    """All manifests of a release with these values, in one text.

    Raises HelmError for values that the chart's schema or its templates refuse.
    """
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name=RELEASE, namespace=NAMESPACE)
    parts = [text.strip() for _, text in sorted(files.items()) if text.strip()]
    return "\n---\n".join(parts) + "\n"


def main(names: list[str]) -> int:
    """Write the manifests, or print what others would be; the exit status."""
    if names:
        documents = {name: rendered(yaml.safe_load(Path(name).read_text())) for name in names}
        sys.stdout.write(json.dumps(documents))
        return 0
    for path in sorted((HERE / "values").glob("*.yaml")):
        text = rendered(yaml.safe_load(path.read_text()))
        header = f"# Made from chart/ and values/{path.name} by render.py: not to be edited.\n---\n"
        (HERE / "manifests" / path.name).write_text(header + text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
