"""``millrace print-schema``: the OpenAPI document without a server."""

import json
from pathlib import Path

from tests.launcher.commanding import last, millrace


def test_the_document_is_printed_from_any_directory(tmp_path: Path) -> None:
    answer = millrace(tmp_path, "print-schema", cwd=tmp_path, MAX_BEST_OF="x")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert document["openapi"].startswith("3.1")
    assert "/generate" in document["paths"]


def test_flags_mean_nothing_to_it(tmp_path: Path) -> None:
    answer = millrace(tmp_path, "print-schema", "--port", "80")
    assert answer.returncode == 2
    assert "--port" in last(answer.stderr)
    assert answer.stdout == ""
