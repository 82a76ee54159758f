"""A conversation made an order: what chat completions, Responses and Messages have in common.

Those surfaces translate their requests into a ``ChatBody``, and the deltas of the answer into their
own words; everything between is here.
"""

from dataclasses import dataclass, replace

from common.errors import ErrorKind, RequestError
from frontend import limits
from frontend.guidance.source import GrammarSource
from frontend.runs import Order, Run
from frontend.schema.openai import ChatBody
from frontend.services import Services
from frontend.text.deltas import PlainReader, Reader
from frontend.text.tools.detected import OutputStyle
from frontend.text.tools.tool import ToolChoice
from frontend.translate import conversation, orders, reading, tools
from frontend.translate.orders import CHAT_NAMES, Dialect, Names, Wanted
from frontend.translate.prompts import encode


@dataclass(frozen=True)
class Conversation:
    """A validated conversation and how its answers are read."""

    order: Order
    input_length: int
    """Prompt tokens."""
    characters: int
    """Length of the templated prompt."""
    opened: str
    """What the prompt has begun of the answer's markup (``OutputStyle.opening``)."""
    choice: ToolChoice | None
    style: OutputStyle
    dialect: Dialect

    def reader(self) -> Reader:
        """A new reader of one answer.

        TGI knows calls, but leaves reasoning in the text; channels are read all the same.
        """
        if self.dialect == "tgi" and self.choice is None and self.style.channels is None:
            return PlainReader()
        return self.style.reader(self.choice, opened=self.opened)

    def said(self, run: Run) -> reading.Said:
        """What a finished run says."""
        return reading.gather(run, self.reader())


def prepare(
    body: ChatBody,
    services: Services,
    *,
    streaming: bool,
    timeout_s: float = 0.0,
    dialect: Dialect = "openai",
    names: Names = CHAT_NAMES,
) -> Conversation:
    """Check everything, render the template, and plan. Raises RequestError."""
    settings, style = services.settings, services.style
    orders.check(body, settings)
    limits.check_top_n(body.top_logprobs, settings, "top_logprobs")
    limits.check_max_new_tokens("max_completion_tokens", body.max_completion_tokens)
    source = orders.demanded(body)
    if source is not None and body.tools is not None:
        raise RequestError(ErrorKind.TOOL, "Grammar and tools are mutually exclusive")
    choice = tools.choice_of(body)
    if choice is not None and dialect == "tgi":
        choice = replace(choice, parallel=False)
    prompt, begun = conversation.render(body, services, choice)
    opened = style.opening(prompt, begun)
    added = bool(body.add_special_tokens)
    ids = encode(prompt, services.tokenizer, services.offload, add_special_tokens=added)
    if names is CHAT_NAMES:
        names = orders.as_given(names, body)
        if body.max_completion_tokens is not None:
            names = names._replace(max_tokens="max_completion_tokens")
    wanted = Wanted(
        max_tokens=body.max_completion_tokens or body.max_tokens,
        choices=body.n or 1,
        top_n_tokens=(body.top_logprobs or 0) if body.logprobs else 0,
        grammar=lambda: _grammar(source, choice, opened, services),
        names=names if choice is None else names._replace(grammar="tools"),
        end_ids=style.end_ids,
    )
    order = orders.order(
        body,
        orders.plans(body, ids, wanted, services, dialect),
        services,
        dialect,
        streaming=streaming,
        timeout_s=timeout_s,
        keep_tokens=bool(body.logprobs) and not streaming,
        markers=style.shown_special_ids(choice),
    )
    return Conversation(order, len(ids), len(prompt), opened, choice, style, dialect)


def _grammar(
    source: GrammarSource | None, choice: ToolChoice | None, opened: str, services: Services
) -> GrammarSource | None:
    """What the answer must match: the client's grammar, or that of its tools' calls.

    A model that writes calls in a form of its own is left alone where it may also write text.
    """
    style = services.style
    if choice is not None and (choice.mode == "required" or style.needs_grammar):
        if choice.mode == "auto" and services.settings.disable_grammar_support:
            return None
        # PERF: 128 tools take a tenth of a second.
        size = sum(len(str(tool.parameters)) for tool in choice.tools)
        return services.offload.run(size, lambda: style.calls(choice, opened))
    return None if source is None else style.framed(source, opened)
