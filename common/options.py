"""The one table of every option. ``--help``, ``docs/settings.md`` and ``--dry-run`` come from it.

Every flag of TGI's launcher is here: implemented, accepted without effect (the log says why), or
refused with a sentence that names it. None is silently ignored.
"""

from common.option import (
    AUTO,
    CPUS,
    LIST,
    LOG_LEVEL,
    NUMBER,
    PATH,
    SIZES,
    SWITCH,
    TEXT,
    TRUTH,
    WHOLE,
    Option,
    absolute_path,
    at_least,
    batch_sizes,
    choice,
    collector,
    different,
    drafts,
    for_tests,
    fraction,
    part,
    port,
    port_or_none,
    positive,
    processes,
    some_keys,
    strength,
)
from common.quantization import CHOICES
from common.routes import OPENABLE, openable
from common.tgi_options import NO_EFFECT, NOT_YET

BUILTIN_MODEL = "millrace-builtin"
"""The name of the model that comes with the code."""

MODEL = (
    Option(
        "model_id", TEXT, BUILTIN_MODEL,
        "Model: a local directory, or a repository of the hub, which is downloaded. The default is "
        "the small model that comes with the code.",
        environment=("HF_MODEL_ID",),
    ),
    Option(
        "revision", TEXT, None, "Branch, tag or commit of the hub repository.",
        environment=("HF_MODEL_REVISION",),
    ),
    Option(
        "lora_adapters", LIST, [],
        "LoRA adapters to serve beside the model, separated by commas: a repository of the hub or "
        "a local directory each, NAME=PLACE to call it otherwise, PLACE@REVISION for another "
        "revision. Requests choose one by `adapter_id`, or as `model`.",
    ),
    Option(
        "huggingface_hub_cache", PATH, None,
        "Where downloaded models are kept. Default: the hub client's own cache.",
        environment=("HF_HUB_CACHE",),
    ),
    Option(
        "dtype", choice("auto", "float32", "bfloat16", "float16"), AUTO, "Type of the weights.",
        auto="the type in the files where the device computes it natively, else float32",
    ),
    Option(
        "quantize", choice(*CHOICES), None,
        "Quantized weights: what the checkpoint is quantized with (gptq, awq, fp8, mxfp4, "
        "compressed-tensors, bitsandbytes; marlin for gptq and awq), or what becomes of others as "
        "they are loaded (eetq, bitsandbytes: int8; fp8; bitsandbytes-nf4, bitsandbytes-fp4: "
        "4 bits). exl2 is refused. Default: what the model's config says.",
        environment=("HF_MODEL_QUANTIZE",),
    ),
    Option(
        "device", choice("auto", "cpu", "cuda"), AUTO, "Where the model runs.", bare=False,
        auto="a GPU if there is one",
    ),
    Option(
        "disable_custom_kernels", SWITCH, False,
        "Run on torch's operators alone: no kernels are compiled or used.",
    ),
    Option(
        "attention_kernel", choice("auto", "triton", "torch", "flashinfer"), AUTO,
        "Which attention runs on GPUs: our own in Triton, torch's over pages (which asks for an "
        "implementation that takes pages of 16 tokens), or FlashInfer's, where it is installed.",
        bare=False, auto="triton",
    ),
    Option(
        "kv_cache_dtype", choice("auto", "bfloat16", "fp8_e4m3", "fp8_e4m3fn", "fp8_e5m2"), AUTO,
        "Type of cached keys and values. In 8 bits (fp8_e4m3 and fp8_e4m3fn are the same) twice as "
        "many tokens fit, of less exact keys and values, scaled where the checkpoint says how; on "
        "a CPU such a cache is slower. On a CPU that computes in float32, bfloat16 takes half the "
        "memory, too, and long texts are faster.",
        auto="the type that the model is computed in",
    ),
    Option(
        "rope_scaling", choice("linear", "dynamic"), None,
        "Scaling of rotary positions, for contexts longer than the model was made for. A factor "
        "alone means linear; a scaling alone has factor 1.",
    ),
    Option("rope_factor", NUMBER, None, "Factor of --rope-scaling.", positive),
    Option(
        "tokenizer_config_path", PATH, None,
        "A tokenizer_config.json to take the chat template from.",
    ),
)  # fmt: skip

REQUESTS = (
    Option(
        "max_concurrent_requests", WHOLE, 128,
        "Sequences that may be alive at once, waiting ones included; more are answered 429.",
        at_least(1),
    ),
    Option("max_best_of", WHOLE, 2, "Largest best_of of a native request.", at_least(1)),
    Option(
        "max_choices", WHOLE, 8,
        "Largest n of a request on the OpenAI routes, and largest best_of of a completion.",
        at_least(1), bare=False,
    ),
    Option("max_stop_sequences", WHOLE, 4, "Most stop strings of a request.", at_least(0)),
    Option("max_top_n_tokens", WHOLE, 5, "Largest top_n_tokens of a request.", at_least(0)),
    Option(
        "max_input_tokens", WHOLE, 1024, "Longest prompt, in tokens.", at_least(1),
        legacy="max_input_length", auto="max_total_tokens - 1",
    ),
    Option(
        "max_total_tokens", WHOLE, 2048, "Most tokens of prompt and answer together.", at_least(2),
        auto="the context of the model",
    ),
    Option(
        "max_client_batch_size", WHOLE, 4, "Most prompts in one completions request.", at_least(1)
    ),
    Option("payload_limit", WHOLE, 2_000_000, "Largest request body, in bytes.", at_least(1)),
    Option(
        "client_buffer", WHOLE, 1_000_000,
        "Bytes that may wait for a client that reads too slowly: in its connection, and again as "
        "tokens of its stream. A stream that is further behind is ended.", at_least(65_536),
        bare=False,
    ),
    Option(
        "validation_workers", WHOLE, 2, "Tokenizer threads of each front-end process.", processes
    ),
    Option(
        "messages_api_dialect", choice("openai", "tgi"), "openai",
        "What chat and completions answers look like, and what their penalties mean: as OpenAI's, "
        "or exactly as TGI's.", bare=False,
    ),
    Option(
        "enable_prefill_logprobs", SWITCH, False,
        "Answer decoder_input_details with the log-probabilities of prompt tokens; otherwise that "
        "list stays empty.",
    ),
    Option(
        "sse_event_ids", SWITCH, False,
        "Give streamed events ids. A client that lost its connection repeats the request with the "
        "last one as Last-Event-ID, at any front end, and gets the rest of its stream.", bare=False,
    ),
    Option(
        "sse_resume_grace", NUMBER, 30.0,
        "With --sse-event-ids: seconds that a stream goes on, and is kept, without its client.",
        positive, bare=False,
    ),
    Option(
        "sse_resume_streams", WHOLE, 256,
        "With --sse-event-ids: streams without a client that are kept at most; the oldest goes "
        "first.", at_least(1), bare=False,
    ),
    Option("disable_grammar_support", SWITCH, False, "Refuse requests with a grammar."),
    Option(
        "grammar_compile_timeout", NUMBER, 5.0,
        "Seconds that the check of one grammar may take; requests with a slower one are refused.",
        positive, bare=False,
    ),
    Option(
        "grammar_memory_limit", WHOLE, 256,
        "MiB of memory that the check of one grammar may take, beside the tokenizer.",
        at_least(16), bare=False,
    ),
    Option(
        "watermark_gamma", NUMBER, 0.5,
        "Of requests with watermark: the share of the vocabulary that is favoured at each step. "
        "Who looks for the watermark has to know it.", part,
    ),
    Option(
        "watermark_delta", NUMBER, 2.0,
        "…and what is added to the logits of the tokens favoured: more is easier to detect, and "
        "changes texts more.", strength,
    ),
)  # fmt: skip

SCHEDULING = (
    Option(
        "max_batch_prefill_tokens", WHOLE, 4096,
        "Most tokens computed in one step; longer prompts are read in pieces.", at_least(1),
        auto="4096, at most max_batch_total_tokens",
    ),
    Option(
        "max_batch_total_tokens", WHOLE, AUTO, "Room for keys and values of each replica, in "
        "tokens.", at_least(2), auto="what fits into memory",
    ),
    Option(
        "queue_timeout", NUMBER, None,
        "Seconds that a request may wait to be started; then it is answered 429. Default: no "
        "bound.", positive, bare=False,
    ),
    Option(
        "max_batch_size", WHOLE, None, "Most sequences computed together. Default: no bound.",
        at_least(1),
    ),
    Option(
        "waiting_served_ratio", NUMBER, 0.3,
        "Waiting sequences join running ones when there are this many times as many of them; at "
        "once while the next step has room for their prompts.",
        at_least(0),
    ),
    Option(
        "max_waiting_tokens", WHOLE, 20,
        "…or when this many tokens were generated since the last time.", at_least(0),
    ),
    Option(
        "max_stall_ms", WHOLE, 200,
        "Milliseconds that running streams may wait for a step because others' prompts are read: "
        "prompts are read in pieces that are measured to fit, and in steps as large as "
        "max_batch_prefill_tokens while nothing streams. 0: no bound.",
        at_least(0), bare=False,
    ),
    Option(
        "prefix_caching", SWITCH, True, "Compute common beginnings of prompts once.",
        negation=True,
    ),
    Option(
        "speculate", WHOLE, 0,
        "Tokens guessed per sequence and step: what followed its last ones before. The model "
        "checks them, so texts are the same; those that repeat something take fewer steps. Not "
        "with a grammar. 0: none; at most 32.", drafts,
    ),
    Option(
        "cuda_memory_fraction", NUMBER, 1.0, "Share of the GPU's memory that may be used.", fraction
    ),
    Option(
        "cuda_graphs", SIZES, None,
        "On GPUs: for which numbers of decoding sequences a step is captured as one CUDA graph, "
        "such as 1,2,4,8,16,32; a step is padded to the next of them. 0: none. Default: 1, 2, 4, "
        "8, then in steps that grow, up to --max-batch-size or 256.", batch_sizes,
    ),
)  # fmt: skip

PROCESSES = (
    Option(
        "num_shard", WHOLE, 1, "Processes that share a copy of the model, each with a part of "
        "every layer (tensor parallelism): one per GPU, or cores of a CPU. It must divide the "
        "model's attention heads and the widths of its feed-forward blocks.", processes,
        environment=("SM_NUM_GPUS",),
    ),
    Option(
        "sharded", TRUTH, None, "true: share the model among all visible GPUs, unless --num-shard "
        "says how many. false: do not.",
    ),
    Option(
        "num_replicas", WHOLE, 1, "Copies of the model, --num-shard worker processes each.",
        processes, bare=False,
    ),
    Option(
        "num_frontends", WHOLE, AUTO, "HTTP processes.", processes, bare=False,
        auto="1; one for every 4 cores, at most 4, on machines with 8 cores or more",
    ),
    Option(
        "worker_threads", WHOLE, AUTO, "Compute threads of each worker on a CPU.", processes,
        bare=False,
        auto="the cores, less one for each front end if there are more than 2, divided among the "
        "replicas",
    ),
    Option(
        "worker_cpus", CPUS, None,
        "Processors that the workers run on, such as 0-7 or 0,2,4,6, shared out among them in this "
        "order; each compute thread is pinned to one. Default: the system places them.",
        different, bare=False,
    ),
    Option(
        "hang_timeout", NUMBER, 20.0,
        "Seconds of silence after which a worker or the scheduler is killed and replaced; of a "
        "worker, 10 times its longest step if that is more. Requests go on.",
        at_least(2), bare=False,
    ),
    Option(
        "runtime_dir", PATH, None, "Directory for sockets and settings, mode 0700. Default: a new "
        "one among the temporary files, removed at the end.", bare=False,
    ),
    Option(
        "graceful_termination_timeout", WHOLE, 90,
        "Seconds that running requests get to finish after SIGTERM or Ctrl-C.", at_least(0),
        short="-g",
    ),
)  # fmt: skip

NETWORK = (
    Option(
        "hostname", TEXT, "0.0.0.0",  # noqa: S104 - a server in a container
        "Address to listen on: an IP address or localhost; any other name means 0.0.0.0.",
        lenient=True,
    ),
    Option(
        "port", WHOLE, 3000, "Port of the API.", port, short="-p",
        environment=("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT"),
    ),
    Option(
        "vertex_predict_route", TEXT, None, "A further path of POST /vertex, for Vertex AI.",
        absolute_path, bare=False, environment=("AIP_PREDICT_ROUTE",),
    ),
    Option(
        "vertex_health_route", TEXT, None, "A further path of GET /health, for Vertex AI.",
        absolute_path, bare=False, environment=("AIP_HEALTH_ROUTE",),
    ),
    Option(
        "prometheus_port", WHOLE, 9000, "A second port for /metrics; 0: none.", port_or_none
    ),
    Option(
        "cors_allow_origin", LIST, [],
        "Origin that browsers may call from; repeat the flag, or separate by commas in the "
        "environment. Default: any.",
    ),
    Option(
        "api_key", LIST, None, "Keys that requests must bring one of (Authorization: Bearer …, "
        "x-api-key or api-key), separated by commas; only their hashes are kept. Better given in "
        "the environment, or in a file, than as a flag. Health stays open.", some_keys,
        secret=True,
    ),
    Option(
        "api_key_file", PATH, None, "A file with one such key per line; # begins a comment. It is "
        "read again when it changes.", bare=False,
    ),
    Option(
        "open_routes", LIST, [], "Paths that may be read without a key when keys are set, out of "
        f"{', '.join(OPENABLE)}. The port of --prometheus-port asks for no key in any case.",
        openable, bare=False,
    ),
    Option(
        "playground", SWITCH, AUTO, "Serve the page /playground, to try the model in a browser.",
        bare=False, negation=True,
        auto="on, but off when keys are set, unless --open-routes names it",
    ),
)  # fmt: skip

OBSERVING = (
    Option("json_output", SWITCH, False, "Log JSON objects."),
    Option("log_level", LOG_LEVEL, "INFO", "error, warn, info or debug.", lenient=True),
    Option(
        "otlp_endpoint", TEXT, None, "An OpenTelemetry collector that gets traces, such as "
        "http://collector:4317 (gRPC), or http://collector:4318/v1/traces (HTTP: with a path). "
        "Default: no traces.", collector,
    ),
    Option("otlp_service_name", TEXT, "text-generation-inference.router", "Name in traces."),
    Option("compute_type", TEXT, AUTO, "Value of the x-compute-type header.",
           auto="cpu, or the name of the GPU"),
    Option(
        "dry_run", SWITCH, False,
        "Print what every setting becomes, and why; start and download nothing.", bare=False,
    ),
    Option(
        "env", SWITCH, False, "Print versions, devices and environment names first.", short="-e",
        lenient=True,
    ),
    Option(
        "debug_faults", TEXT, None, "For tests only: what goes wrong in the workers, such as "
        "test-only:exit@17,23;slow=0.5@4 (exit, hang, memory or slow, and the token ids whose "
        "prompts it strikes).", for_tests, bare=False, flag=False,
        environment=("MILLRACE_DEBUG_FAULTS",),
    ),
)  # fmt: skip

SECTIONS = {
    "Model": MODEL,
    "Limits of a request": REQUESTS,
    "Scheduling": SCHEDULING,
    "Processes": PROCESSES,
    "Network": NETWORK,
    "Logs and information": OBSERVING,
    "Accepted without effect": NO_EFFECT,
    "Refused so far": NOT_YET,
}
OPTIONS: dict[str, Option] = {
    option.name: option for section in SECTIONS.values() for option in section
}

HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN")
"""Environment names of the hub token, the strongest first. Only the hub client sees it."""
SECRET_NAMES = frozenset(HUB_TOKENS) | {
    name for option in OPTIONS.values() if option.secret for name in option.environment_names
}
"""Environment names that no started process inherits."""
