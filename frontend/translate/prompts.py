"""Text to prompt ids, and sampling on or off: what the surfaces do alike.

Large texts are tokenized on the thread pool, so that no stream of this process stands still.
"""

import random

from frontend.pool import Offload
from frontend.text.tokenizer import Tokenizer

SEED_BITS = 64


def encode(
    text: str, tokenizer: Tokenizer, offload: Offload, *, add_special_tokens: bool
) -> list[int]:
    """The token ids of a prompt."""
    return offload.run(
        len(text), lambda: tokenizer.encode(text, add_special_tokens=add_special_tokens)
    )


def random_seed() -> int:
    """A seed for a client that gave none: any unsigned 64-bit number."""
    return random.getrandbits(SEED_BITS)
