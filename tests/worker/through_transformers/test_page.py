"""The table of models that is kept, beside the prose that it is made of."""

from tests.breadth.report import PAGE, PROSE


def test_the_page_has_the_prose_as_it_is():
    """Who edits one of them alone would lose it at the next ``make models-test``."""
    kept = iter(PAGE.read_text().splitlines())
    fixed = [line for line in PROSE.read_text().splitlines() if "{{" not in line]
    missing = [line for line in fixed if not any(line == one for one in kept)]
    assert not missing, "edit tests/breadth/supported_models.in.md, then: make models-test"
