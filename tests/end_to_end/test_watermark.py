"""Texts with a watermark are found by the public detector, and others are not.

``test_shards.py`` has another rule.
"""

from tests.end_to_end.harness import Server, together
from tests.end_to_end.reference import Reference
from tests.end_to_end.watermarks import HEATED, score, told


def test_marked_texts_are_told_from_others(server: Server, reference: Reference) -> None:
    """Side by side, in the same batches."""
    texts = together(4, lambda i: told(server, i // 2, watermark=i % 2 == 0, **HEATED))
    scores = [score(reference, ids) for ids in texts]
    assert min(scores[::2]) > 4
    assert max(scores[1::2]) < 3


def test_one_seed_gives_the_same_text_again(server: Server) -> None:
    asked = {"max_new_tokens": 30, **HEATED}
    ids = told(server, 1, watermark=True, **asked)
    assert told(server, 1, watermark=True, **asked) == ids
    assert told(server, 1, **asked) != ids


def test_with_a_grammar(server: Server, reference: Reference) -> None:
    grammar = {"type": "regex", "value": "[a-z ]{200}"}
    texts = together(2, lambda i: told(server, 1, watermark=bool(i), grammar=grammar, **HEATED))
    assert score(reference, texts[1]) > 4
    assert score(reference, texts[0]) < 3
