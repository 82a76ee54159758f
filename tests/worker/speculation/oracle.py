"""A drafter that knows what sequences will say, and now and then lies."""

import random


class Oracle:
    """As ``MakeDrafter``. Of sequences that it does not know it has no idea."""

    def __init__(self, texts: list[list[int]], *, lies: float = 0.0, seed: int = 0) -> None:
        self.texts = texts
        self.lies = lies
        self.choice = random.Random(seed)
        self.asked: list[int] = []

    def __call__(self, ids, longest):
        return _Foretelling(self, ids, longest)


class _Foretelling:
    def __init__(self, oracle: Oracle, ids: list[int], longest: int) -> None:
        self.oracle = oracle
        self.ids = ids
        self.longest = longest

    def propose(self, most):
        known = len(self.ids)
        assert known < self.longest
        self.oracle.asked.append(most)
        for text in self.oracle.texts:
            if text[:known] == self.ids:
                truth = text[known : known + most]
                return [
                    (token + 1) % 50 if self.oracle.choice.random() < self.oracle.lies else token
                    for token in truth
                ]
        return []
