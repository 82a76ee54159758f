"""What TGI can be told and Millrace cannot: accepted without effect, or refused so far.

Declarations, as in ``options.py``, which takes them in. Knows nothing of their values.
"""

from common.option import PATH, SWITCH, TEXT, Option, choice

_SHARDS_MEET = "shards meet in the runtime directory (--runtime-dir)"

NO_EFFECT = (
    Option("trust_remote_code", SWITCH, False, "TGI: run Python code from the repository.",
           no_effect="code from model repositories is never run, and a model that needs its own is "
           "refused", harmless=(False,), warns=True, environment=("HF_MODEL_TRUST_REMOTE_CODE",)),
    Option("usage_stats", choice("on", "off", "no-stack"), None, "TGI: telemetry.",
           no_effect="Millrace sends no usage statistics"),
    Option("shard_uds_path", TEXT, None, "TGI: sockets of its shards.",
           no_effect="sockets live in the runtime directory (--runtime-dir)"),
    Option("master_addr", TEXT, None, "TGI: rendezvous of its shards.", no_effect=_SHARDS_MEET),
    Option("master_port", TEXT, None, "TGI: rendezvous of its shards.", no_effect=_SHARDS_MEET),
    Option("attention", TEXT, None, "TGI: attention implementation.", flag=False,
           no_effect="the worker itself picks kernels that run on the device"),
    Option("use_flash_attention", TEXT, None, "TGI: attention implementation.", flag=False,
           no_effect="the worker itself picks kernels that run on the device"),
    Option("prefill_chunking", TEXT, None, "TGI: read long prompts in pieces.", flag=False,
           no_effect="long prompts are always read in pieces"),
    Option("tgi_wiggle_room", TEXT, None, "TGI: share of memory left free.", flag=False,
           no_effect="use --cuda-memory-fraction or --max-batch-total-tokens"),
)  # fmt: skip

NOT_YET = (
    Option("weights_cache_override", PATH, None, "TGI: a second place for weights.",
           not_yet="it is not supported; pass the directory as --model-id", harmless=(None,)),
    Option("ngrok", SWITCH, False, "TGI: a public tunnel.",
           not_yet="tunnels are not supported; run a tunnel of your own beside the server",
           harmless=(False,)),
    Option("ngrok_authtoken", TEXT, None, "TGI: a public tunnel.", secret=True,
           not_yet="tunnels are not supported; leave it out", harmless=(None,)),
    Option("ngrok_edge", TEXT, None, "TGI: a public tunnel.",
           not_yet="tunnels are not supported; leave it out", harmless=(None,)),
)  # fmt: skip
