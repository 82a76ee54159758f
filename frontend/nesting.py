"""How deeply JSON documents nest: what recurses over them could run out of stack otherwise.

Runs in front ends. Knows nothing of what they mean.
"""

MAX_DEPTH = 254
"""JSON containers inside each other in a request: so many orjson writes."""


def depth_exceeds(value: object, limit: int) -> bool:
    """Whether more than ``limit`` JSON containers lie inside each other. No recursion."""
    level = [value]
    for _ in range(limit):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return any(isinstance(item, dict | list) for item in level)
