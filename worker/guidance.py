"""Grammars: compiled on threads of their own, and handed to the main one as guides.

Runs in the worker. Owns llguidance's tokenizer and the compiled grammars that are kept for the next
sequence. What goes wrong ends one sequence, with a sentence that quotes no text. Knows nothing of
logits, blocks or messages.
"""

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import llguidance
import torch

from common.guidance import parser_limits
from worker.guide import Guide
from worker.handover import Handover
from worker.masks import MaskMaker, Pending, panics_as_errors
from worker.pinning import at_large

_KEPT = 32
"""Compiled grammars kept, the least recently used out first."""
_COMPILERS = 2
"""Threads: a grammar that takes long holds up one of them."""

_log = logging.getLogger(__name__)


class Guidance:
    """Every grammar of this worker."""

    def __init__(
        self,
        tokenizer: llguidance.LLTokenizer,
        *,
        vocabulary: int,
        threads: int,
        device: torch.device,
        compilers: Executor | None = None,
    ) -> None:
        """``vocabulary`` is the logits' width, ``compilers`` runs what compiles."""
        self._tokenizer = tokenizer
        self._limits = llguidance.LLParserLimits(**parser_limits(), verbose_errors=False)
        self._compilers = compilers or ThreadPoolExecutor(
            _COMPILERS, thread_name_prefix="grammars", initializer=at_large()
        )
        self._compiled = _Compiled()
        self._arrived: Handover[Guide] = Handover()
        self._masks = MaskMaker(
            tokenizer.vocab_size, vocabulary=vocabulary, threads=threads, device=device
        )

    @property
    def wakeup_fd(self) -> int:
        """Readable while somebody has arrived."""
        return self._arrived.fd

    def admit(
        self, owner: int, grammar: str, stop_ids: Sequence[int], generated_ids: Sequence[int]
    ) -> Guide:
        """A guide that will arrive; nobody may follow it before. All ids are valid."""
        guide = Guide(owner, stop_ids, self._tokenizer)
        kept = None if generated_ids else self._compiled.find(grammar)
        if kept is not None:
            guide.start(kept, generated_ids)
            self._arrived.give(guide)
        else:
            self._compilers.submit(self._prepare, guide, grammar, list(generated_ids))
        return guide

    def arrived(self) -> list[Guide]:
        """Guides that are ready, or have failed, since the last call."""
        return self._arrived.take()

    def begin(self, guides: Sequence[Guide]) -> Pending:
        """What these allow next, while the caller does other things."""
        return self._masks.begin(guides)

    def close(self) -> None:
        """Ends the threads."""
        self._compilers.shutdown(cancel_futures=True)
        self._masks.close()
        self._arrived.close()

    def _prepare(self, guide: Guide, grammar: str, generated_ids: Sequence[int]) -> None:
        try:
            with panics_as_errors():
                matcher = self._compiled.find(grammar) or self._compile(grammar)
                if matcher.is_error():
                    guide.error = "the grammar cannot be compiled"
                else:
                    guide.start(matcher, generated_ids)
        except Exception as error:
            _log.error("a grammar could not be prepared (%s)", type(error).__name__)
            guide.error = "the grammar could not be prepared"
        self._arrived.give(guide)

    def _compile(self, grammar: str) -> llguidance.LLMatcher:
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        if not matcher.is_error():
            self._compiled.keep(grammar, matcher.deep_copy())
        return matcher


class _Compiled:
    """Matchers at the start of their grammars, by its text. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._matchers: OrderedDict[str, llguidance.LLMatcher] = OrderedDict()

    def find(self, grammar: str) -> llguidance.LLMatcher | None:
        """The caller's own copy, if this grammar is kept."""
        with self._lock:
            matcher = self._matchers.get(grammar)
            if matcher is None:
                return None
            self._matchers.move_to_end(grammar)
        return matcher.deep_copy()

    def keep(self, grammar: str, matcher: llguidance.LLMatcher) -> None:
        """Nobody may touch this matcher any more."""
        with self._lock:
            self._matchers[grammar] = matcher
            if len(self._matchers) > _KEPT:
                self._matchers.popitem(last=False)


def load_guidance(
    model_dir: str, *, vocabulary: int, threads: int, device: torch.device
) -> Guidance | None:
    """Guidance by the model's tokenizer.json; None, and a warning, if llguidance cannot read it.

    PERF: holds the interpreter's lock, 0.5 s for 128 thousand tokens: to be called at start.
    """
    began = time.perf_counter()
    try:
        with panics_as_errors():
            tokenizer = _read_tokenizer(Path(model_dir), vocabulary)
    except (OSError, ValueError, RuntimeError) as error:
        _log.warning("sequences with a grammar will fail, tokenizer.json cannot be used: %s", error)
        return None
    _log.debug("the grammars' tokenizer was read in %.1f s", time.perf_counter() - began)
    return Guidance(tokenizer, vocabulary=vocabulary, threads=threads, device=device)


def _read_tokenizer(directory: Path, vocabulary: int) -> llguidance.LLTokenizer:
    """As wide as the logits, or wider if it knows more tokens. Raises OSError or ValueError."""
    path = str(directory / "tokenizer.json")
    end_id = _end_id(directory)
    try:
        return llguidance.LLTokenizer(path, n_vocab=vocabulary, eos_token=end_id)
    except ValueError:  # unreadable; or one of the two numbers does not fit
        known = llguidance.LLTokenizer(path).vocab_size
    if end_id is not None and end_id >= known:
        end_id = None
    return llguidance.LLTokenizer(path, n_vocab=max(vocabulary, known), eos_token=end_id)


def _end_id(directory: Path) -> int | None:
    """The id by which the model ends, if its files name one. Sequences bring their own."""
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        config = json.loads(path.read_bytes()) if path.exists() else None
        said = config.get("eos_token_id") if isinstance(config, dict) else None
        for value in said if isinstance(said, list) else [said]:
            if type(value) is int and value >= 0:
                return value
    return None
