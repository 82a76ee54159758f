"""What the fields of requests mean, and the shape of those that are declared loosely.

Entries are for a field of one type and those derived from it (``GenerateBody.parameters``), or for
every field of that name. A docstring below the field itself wins. Limits that depend on settings
are named, not numbered: their numbers are in ``/info``.
"""

from typing import Any

MEANINGS: dict[str, str] = {
    # what to continue
    "inputs": "The prompt.",
    "GenerateBody.parameters": "How to generate. Without this key tokens are sampled; with any "
    "object that does not say `do_sample`, the likeliest token is taken.",
    "stream": "Whether to answer token by token, in server-sent events.",
    "messages": "The conversation. If it ends with a message of the assistant, that message is "
    "continued.",
    "Message.role": "Who speaks: `system`, `user`, `assistant`, `tool`, or what the model's "
    "template knows besides.",
    "Message.content": "The text, or parts of it. It may be missing beside `tool_calls`.",
    "Message.name": "Name of the speaker, for templates that show it.",
    "Message.tool_calls": "Calls that the model wanted, as it was answered.",
    "Message.tool_call_id": "The call that a `tool` message gives the result of.",
    "Message.reasoning_content": "What the model wrote to itself before that message, for "
    "templates that repeat it.",
    "ContentPart.type": "Kind of the part: `text`.",
    "ContentPart.text": "The text of the part.",
    "ContentPart.refusal": "The text of a part that is a refusal.",
    "model": "An adapter's name; any other means the model alone. Chat repeats it in the answer.",
    "suffix": "Refused: text is generated at the end only.",
    # how many
    "max_new_tokens": "Most tokens to generate, at least 1. Without it, the context is filled.",
    "max_tokens": "Most tokens to generate, at least 1. Without it, the context is filled.",
    "max_completion_tokens": "The newer name of `max_tokens`; it wins.",
    "min_tokens": "So many tokens are generated before the model, or a stop string, may end the "
    "text.",
    "ignore_eos": "Whether to go on where the model would end the text.",
    "best_of": "So many sequences are generated, the likeliest is answered. At most "
    "`max_best_of`; needs sampling, and no `seed`.",
    "stop": "Texts that end the generation, at most `max_stop_sequences` of them. Native answers "
    "keep them, OpenAI's do not.",
    "truncate": "Only so many of the prompt's last tokens are read; 1 to `max_input_tokens`.",
    # which token
    "do_sample": "Whether tokens are drawn. Drawing is also on if `temperature` is not 1, or if "
    "`top_k`, `top_p`, `typical_p` or `min_p` is set.",
    "temperature": "What logits are divided by before drawing; greater than 0. Smaller is more "
    "predictable.",
    "OpenAIBody.temperature": "What logits are divided by before drawing. 0 takes the likeliest "
    "token, smaller is more predictable.",
    "top_k": "Only the so many likeliest tokens are drawn from.",
    "top_p": "Only the likeliest tokens with this total probability are drawn from; between 0 "
    "and 1.",
    "min_p": "Only tokens are drawn from that are at least so likely, as a share of the likeliest "
    "one; 0 to 1.",
    "typical_p": "Only the most typical tokens with this total probability are drawn from; "
    "between 0 and 1.",
    "seed": "Makes drawing repeatable. Without it, one is chosen.",
    "repetition_penalty": "What logits of tokens that occurred are divided by (multiplied, where "
    "negative); greater than 0, 1 is none.",
    "frequency_penalty": "Subtracted from the logits of a token for each time it occurred; -2 to "
    "2.",
    "presence_penalty": "Subtracted from the logits of a token that occurred; -2 to 2.",
    "logit_bias": "Added to the logits of tokens: numbers from -100 to 100 by token id.",
    "grammar": "What the text must match.",
    "GrammarParameter.type": "`json`, `json_object`, `json_schema`, `regex` or `lark`.",
    "watermark": "Whether the text favours tokens by a rule that a detector knows.",
    "adapter_id": "The LoRA adapter to generate with; any name that is none means the model alone.",
    # what to report
    "details": "Whether to report each token, the seed, and why the text ended.",
    "decoder_input_details": "Whether to report the prompt's tokens; not for streams.",
    "top_n_tokens": "So many of the likeliest candidates are reported at each step.",
    "return_full_text": "Whether the prompt stands before the text in `generated_text`.",
    "logprobs": "Whether to report the log-probability of each token.",
    "top_logprobs": "So many of the likeliest candidates are reported with each token; needs "
    "`logprobs`.",
    "stream_options": "What a stream carries besides text.",
    "include_usage": "Whether the stream ends with a chunk that holds the usage.",
    # conversations
    "tools": "Functions that the model may call.",
    "FunctionDefinition.name": "Its name.",
    "FunctionDefinition.description": "What it does, for the model to read.",
    "parallel_tool_calls": "Whether there may be several calls in one answer.",
    # Anthropic's messages
    "CountTokensBody.messages": "The conversation. If it ends with a message of the assistant, "
    "that message is continued.",
    "CountTokensBody.system": "Instructions that stand before the conversation.",
    "CountTokensBody.tools": "Tools that the model may call.",
    "CountTokensBody.tool_choice": "Who decides about calls.",
    "CountTokensBody.thinking": "Whether the model thinks first.",
    "CountTokensBody.output_config": "How the answer is written.",
    "MessagesBody.max_tokens": "Most tokens to generate, at least 1.",
    "MessagesBody.stop_sequences": "Texts that end the answer and are not part of it, at most "
    "`max_stop_sequences` of them.",
    "MessagesBody.temperature": "What logits are divided by before drawing. 0 takes the likeliest "
    "token, smaller is more predictable.",
    "MessagesBody.stream": "Whether to answer event by event.",
    "UserMessage.content": "Text, or blocks of text and results of tools.",
    "AssistantMessage.content": "Text, or blocks as they were answered.",
    "SystemMessage.content": "Text, or blocks of it.",
    "TextBlock.text": "The text.",
    "ToolUseBlock.id": "As it was answered.",
    "ToolUseBlock.name": "Which tool.",
    "ToolUseBlock.input": "Its input.",
    "ThinkingBlock.thinking": "The text.",
    "ToolResultBlock.tool_use_id": "The call that this is the result of.",
    "ToolResultBlock.content": "The result.",
    "ToolResultBlock.is_error": "Whether the call failed.",
    "Tool.name": "Its name.",
    "Tool.description": "What it does, for the model to read.",
    "ToolChoice.type": "`auto`: the model. `any`: there is a call. `tool`: one of the tool that "
    "`name` names. `none`: there is none.",
    "ThinkingConfig.type": "`enabled` and `adaptive` ask for it, `disabled` asks for none.",
    "OutputFormat.type": "Always `json_schema`.",
    "OutputFormat.schema": "The JSON schema.",
    "OutputConfig.format": "What the text must match.",
    # hosting platforms
    "VertexBody.instances": "The requests: each has `inputs` and `parameters` as for `/generate`, "
    "or `messages` and what else `/v1/chat/completions` takes, but for `n` and `stream`.",
    "InferBody.inputs": "The texts.",
    "InferBody.id": "Repeated in the answer.",
    "InferBody.parameters": "How to generate. Without this key tokens are sampled.",
    "InferInput.name": "Its name, which the output has too unless `outputs` names it.",
    "InferInput.data": "One string, or the bytes of its UTF-8 as numbers.",
    "InferInput.shape": "Not used.",
    "InferInput.datatype": "Always `BYTES`.",
    "InferOutput.name": "Its name.",
    "chat_template_kwargs": "Further variables for the chat template.",
}

_TOKEN_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}

REFINEMENTS: dict[str, dict[str, Any]] = {
    "GenerateBody.parameters": {"default": {"do_sample": True}},
    "InferBody.parameters": {"default": {"do_sample": True}},
    "CompletionBody.prompt": {
        "anyOf": [
            {"type": "string"},
            _TOKEN_IDS,
            {"type": "array", "items": {"anyOf": [{"type": "string"}, _TOKEN_IDS]}, "minItems": 1},
        ]
    },
}
