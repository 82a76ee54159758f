"""The built-in tokenizer with the markers of all formats, and texts that follow grammars in it."""

from pathlib import Path

import tokenizers
from llguidance import LLMatcher, LLTokenizer

from frontend.text.tools import registry

BUILTIN = Path("common/models/builtin/tokenizer.json")


class Vocabulary:
    """The built-in tokenizer, with markers as tokens (special, plain) or without them."""

    def __init__(self, kind: str) -> None:
        self.tokenizer = tokenizers.Tokenizer.from_file(str(BUILTIN))
        markers = [token for style in registry.FORMATS for token in style.marker_tokens]
        markers += ["<think>", "</think>"]
        if kind == "special":
            self.tokenizer.add_special_tokens(markers)
        elif kind == "added":
            self.tokenizer.add_tokens(markers)
        eos = self.tokenizer.token_to_id("<|eos|>")
        self.guidance = LLTokenizer(self.tokenizer.to_str(), eos_token=eos)

    def follow(self, grammar: str, text: str) -> bool | str:
        """Whether the text is whole; or how far it is allowed."""
        assert not LLMatcher.validate_grammar(grammar, self.guidance)
        matcher = LLMatcher(self.guidance, grammar, log_level=0)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        allowed = matcher.validate_tokens(ids)
        if allowed < len(ids):
            return self.tokenizer.decode(ids[:allowed], skip_special_tokens=False)
        matcher.consume_tokens(ids)
        return bool(matcher.is_accepting())
