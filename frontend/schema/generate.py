"""The requests of the native routes: ``/``, ``/generate``, ``/generate_stream``, ``/tokenize``."""

from typing import Any, Literal

import msgspec

from frontend.schema import I32, U32, U63, U64, check_u64


class GrammarParameter(msgspec.Struct, frozen=True):
    """What the output must match."""

    type: Literal["json", "json_object", "json_schema", "regex", "lark"]
    value: dict[str, Any] | str
    """A JSON schema as an object or as text, ``{"schema": …}``, or the text of the grammar."""


class GenerateParameters(msgspec.Struct, frozen=True):
    """How to generate. Fields without ``None`` in their type refuse an explicit null."""

    best_of: U63 | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: I32 | None = None
    top_p: float | None = None
    typical_p: float | None = None
    min_p: float | None = None
    do_sample: bool = False
    max_new_tokens: U32 | None = None
    return_full_text: bool | None = None
    stop: list[str] = []
    truncate: U63 | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: U64 | None = None
    top_n_tokens: U32 | None = None
    grammar: GrammarParameter | None = None
    adapter_id: str | None = None
    cache_salt: str | None = None
    """Beside TGI's: cached prefixes are shared only with requests that have the same one."""

    def __post_init__(self) -> None:
        """Check what types cannot say."""
        check_u64("seed", self.seed)


class GenerateBody(msgspec.Struct, frozen=True):
    """``/generate``, ``/generate_stream`` and ``/tokenize``."""

    inputs: str
    parameters: GenerateParameters = GenerateParameters(do_sample=True)
    """Without the key, sampling is on; with any object that does not say so, it is off."""


class RootBody(GenerateBody, frozen=True):
    """``POST /``."""

    stream: bool = False
