"""The settings of a running server: one frozen structure, resolved once by the launcher.

The launcher writes it to a file (mode 0600) in the runtime directory; every process loads that
file, which the environment variable ``MILLRACE_SETTINGS`` names. Nobody else reads the environment.
"""

import os
from typing import Literal

import msgspec

from common.adapters import Adapter
from common.errors import StartupError

SETTINGS_VARIABLE = "MILLRACE_SETTINGS"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every resolved setting; ``common/options.py`` says what each means."""

    # the model
    model_id: str
    """As the user named it."""
    model_dir: str
    """Local directory with config, weights and tokenizer, prepared by the launcher."""
    revision: str | None = None
    model_sha: str | None = None
    model_pipeline_tag: str | None = None
    dtype: str = "auto"
    """``auto``, ``float32``, ``bfloat16`` or ``float16``."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    kv_cache_dtype: str = "auto"
    """``auto``, ``fp8_e4m3`` (or ``fp8_e4m3fn``) or ``fp8_e5m2``."""
    quantize: str | None = None
    """One of ``CHOICES`` of common/quantization.py; None: as the checkpoint is."""
    disable_custom_kernels: bool = False
    attention_kernel: str = "auto"
    """On GPUs: ``auto``, ``triton``, ``torch`` or ``flashinfer``."""
    kernel_cache: str | None = None
    """Directory where the workers keep the kernels that they have compiled for this machine."""
    rope_scaling: str | None = None
    rope_factor: float | None = None
    tokenizer_config_path: str | None = None
    adapters: list[Adapter] = []
    """What ``--lora-adapters`` has become, in its order; names differ."""
    # limits
    max_concurrent_requests: int = 128
    max_best_of: int = 2
    max_choices: int = 8
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_input_tokens: int = 1024
    max_total_tokens: int = 2048
    max_client_batch_size: int = 4
    payload_limit: int = 2_000_000
    client_buffer: int = 1_000_000
    """Bytes that may wait for a client that reads too slowly."""
    validation_workers: int = 2
    """Tokenizer threads of each front end."""
    messages_api_dialect: Literal["openai", "tgi"] = "openai"
    enable_prefill_logprobs: bool = False
    disable_grammar_support: bool = False
    grammar_compile_timeout: float = 5.0
    """Seconds."""
    grammar_memory_limit: int = 256
    """MiB."""
    watermark_gamma: float = 0.5
    """Share of the vocabulary that a watermark favours."""
    watermark_delta: float = 2.0
    """Added to the logits of the tokens favoured."""
    # scheduling
    waiting_served_ratio: float = 0.3
    max_batch_prefill_tokens: int = 4096
    max_batch_total_tokens: int | None = None
    """KV room of a replica in tokens; None lets the worker derive it from memory."""
    max_waiting_tokens: int = 20
    sse_event_ids: bool = False
    """Whether streamed events have ids, and a client may take its stream up again."""
    sse_resume_grace: float = 30.0
    """Seconds that a stream is kept for a client that is gone."""
    sse_resume_streams: int = 256
    """Streams without a client that are kept at most."""
    queue_timeout: float | None = None
    """Seconds that a request may wait for its first step."""
    max_batch_size: int | None = None
    max_stall_ms: int = 200
    """Of running streams, by the prompts of others; 0 is no bound."""
    prefix_caching: bool = True
    speculate: int = 0
    """Drafts of a sequence and step at most."""
    # processes and network
    num_shard: int = 1
    """Worker processes of each replica."""
    num_replicas: int = 1
    num_frontends: int = 1
    hang_timeout: float = 20.0
    """Seconds."""
    worker_threads: int = 1
    """Compute threads of each worker on a CPU."""
    worker_cpus: list[int] | None = None
    """What those of all workers are pinned to, worker by worker; None: none is pinned."""
    hostname: str = "0.0.0.0"  # noqa: S104 - a server in a container
    port: int = 3000
    prometheus_port: int = 9000
    vertex_predict_route: str | None = None
    vertex_health_route: str | None = None
    cors_allow_origin: list[str] = []
    api_key_digests: list[str] = []
    """``common.keys.digest`` of each key that was given; no process but the launcher sees keys."""
    api_key_file: str | None = None
    open_routes: list[str] = []
    playground: bool = True
    compute_type: str = "cpu"
    graceful_termination_timeout: int = 90
    cuda_memory_fraction: float = 1.0
    cuda_graphs: list[int] | None = None
    """Numbers of decoding sequences; [0] is none, None leaves them to the worker."""
    json_output: bool = False
    log_level: str = "INFO"
    otlp_endpoint: str | None = None
    otlp_service_name: str = "text-generation-inference.router"
    debug_faults: str | None = None
    """For tests only; see ``worker/faults.py``."""
    runtime_dir: str = ""

    @property
    def needs_key(self) -> bool:
        """Whether requests have to bring an API key."""
        return bool(self.api_key_digests) or self.api_key_file is not None

    def __repr__(self) -> str:
        """Without secrets."""
        return f"Settings(model_id={self.model_id!r}, port={self.port})"


def environment() -> dict[str, str]:
    """A copy of this process's environment; nobody else looks at ``os.environ``."""
    return dict(os.environ)


def load() -> Settings:
    """The settings of this process, from the file named by ``MILLRACE_SETTINGS``.

    Raises StartupError if there is none or it is not valid.
    """
    path = os.environ.get(SETTINGS_VARIABLE)
    if not path:
        raise StartupError(
            f"{SETTINGS_VARIABLE} is not set: this process is started by millrace, not by hand"
        )
    return read(path)


def read(path: str) -> Settings:
    """The settings in a file. Raises StartupError if there are none or they are not valid."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=Settings)
    except (OSError, msgspec.DecodeError) as error:
        raise StartupError(f"cannot read the settings in {path}: {error}") from None
