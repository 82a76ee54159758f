"""The sampling parameters of one sequence, as they travel from the front end to the sampler.

Owned by the front end, which validates and resolves them; everybody else only reads. The draw is a
pure function of (logits, these parameters, position), so that a sequence can be continued on
another worker from its token ids alone.
"""

import msgspec


class SamplingParameters(msgspec.Struct, frozen=True, array_like=True):
    """How the next token is chosen. The defaults are plain arg-max decoding.

    Processors run in this order (Text Generation Inference's; min-p, which it lacks, stands where
    vLLM has it): watermark, bias, repetition penalty, frequency penalty, the two output penalties,
    minimum length, grammar (``SequenceSpec.grammar``), temperature, min-p, top-k, top-p, typical-p,
    draw.
    """

    do_sample: bool = False
    """Draw from the distribution; False takes the largest logit."""
    seed: int = 0
    """Key of the sampling noise, 0 … 2**64 - 1. Meaningless unless ``do_sample``."""
    temperature: float = 1.0
    """Logits are divided by it; > 0."""
    top_k: int = 0
    """Keep logits that are at least the k-th largest; 0 is off."""
    top_p: float = 1.0
    """Keep the smallest set of most likely tokens whose mass reaches it; 1.0 is off."""
    typical_p: float = 1.0
    """Keep the tokens nearest to the entropy whose mass reaches it; 1.0 is off."""
    repetition_penalty: float = 1.0
    """Tokens in prompt or output: positive logits are divided by it, negative ones multiplied."""
    frequency_penalty: float = 0.0
    """TGI's: subtracts penalty x count / length, counted over prompt and output."""
    output_frequency_penalty: float = 0.0
    """OpenAI's: subtracts penalty x count, counted over the output only."""
    output_presence_penalty: float = 0.0
    """OpenAI's: subtracts the penalty once from every token that the output already holds."""
    logit_bias: dict[int, float] = {}
    """Added to the logits of these token ids before all but the watermark."""
    min_new_tokens: int = 0
    """The sequence's stop token ids cannot be chosen before this many tokens. Without effect
    beside a grammar, which says itself where it may end."""
    top_n_tokens: int = 0
    """Report this many of the most likely tokens at each step (ties of the last included)."""
    watermark: bool = False
    """Raise the logits of the tokens that are green after the last one, so that texts can be
    recognised (``worker.watermark``)."""
    min_p: float = 0.0
    """Keep tokens that are at least so likely, as a share of the likeliest one; 0.0 is off."""
