"""The Jinja environment in which chat templates run; runs in front ends.

Owns what a template may do: Jinja's immutable sandbox with every loop, call, filter, concatenation
and literal reported to a ``Meter``. Knows nothing of chats. What Jinja can make large out of little
(``*``, ``**``, ``%``, ``~``, replace, join, widths, indentation) is sized before it is done.

Two steps, because compiling is slow and a meter belongs to one render::

    code = compile_template(environment, source)     # at start
    render(environment, code, variables, meter)      # per request
"""

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import CodeType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from frontend.text.gates import FILTER_GATES, METHOD_GATES, gate_binary, gate_format
from frontend.text.meter import LimitExceededError, Meter, RenderLimits

_FORBIDDEN = {
    str: {"encode", "expandtabs", "maketrans", "translate"},
    int: {"to_bytes", "from_bytes"},
}
"""Methods that make much out of little and that no chat template needs."""
_LEFT_OUT_FILTERS = {"pprint", "striptags", "urlize", "wordwrap", "xmlattr"}
"""Helpers for web pages whose cost has no simple bound."""
_LEFT_OUT_GLOBALS = {"lipsum"}
_MAX_FORMAT_CHARACTERS = 200
_WIDE_DATE = re.compile(r"%[^A-Za-z%]*\d{3}")
"""A width of hundreds, which some systems' ``strftime`` knows."""


class RaisedError(Exception):
    """The template called ``raise_exception``."""


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment; ``metered`` makes the one of a single render."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _GenerationTag],
            finalize=lambda value: value,  # replaced by the one of a render
        )
        self.meter = Meter(RenderLimits())
        self.filters["tojson"] = _tojson
        for name, function in list(self.filters.items()):
            self.filters[name] = _metered(name, function)
        for name in _LEFT_OUT_FILTERS:
            del self.filters[name]
        self.filters.update(_step=_step, _made=_made, _joined=_joined)
        for name in _LEFT_OUT_GLOBALS:
            del self.globals[name]
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime(now)

    def metered(self, meter: Meter) -> "Sandbox":
        """A copy that shares everything but the meter."""
        twin = copy.copy(self)
        twin.meter = meter
        twin.finalize = twin._shown
        return twin

    def _shown(self, value: Any) -> Any:
        """Called on every value that is about to be written out."""
        if not isinstance(value, str):
            self.meter.room_for(self.meter.weigh(value))
        return value

    def concat(self, parts: Iterable[str]) -> str:
        """Join the output of a macro or of a block."""
        parts = list(parts)
        self.meter.room_for(sum(map(len, parts)))
        return str(self.meter.made("".join(parts)))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read an attribute of an object."""
        if isinstance(obj, bytes) or not super().is_safe_attribute(obj, attr, value):
            return False
        return not any(
            isinstance(obj, kind) and attr in names for kind, names in _FORBIDDEN.items()
        )

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format``, with its result sized before it is made."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:
            gate_format(self.meter, value.__self__, (args, kwargs))
            return wrapped(*args, **kwargs)

        return bounded

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, method or macro."""
        self.meter.step()
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            gate = METHOD_GATES.get(obj.__name__)
            if gate is not None:
                args = gate(self.meter, owner, *args)
        return self.meter.made(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Evaluate an operator that can make its operands larger."""
        if operator != "+":
            gate_binary(self.meter, operator, left, right)
        elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
            return self.meter.joined(left, right)
        return self.meter.made(self.binop_table[operator](left, right))


def compile_template(environment: Sandbox, source: str) -> CodeType:
    """Code of a template. Raises ``jinja2.TemplateSyntaxError``."""
    tree = environment.parse(source)
    instrumented = _Instrument().visit(tree)
    instrumented.set_environment(environment)
    code: CodeType = environment.compile(instrumented)
    return code


def render(environment: Sandbox, code: CodeType, variables: Mapping[str, Any], meter: Meter) -> str:
    """Run a compiled template. Raises whatever the template does, ``LimitExceededError`` too."""
    twin = environment.metered(meter)
    template = jinja2.Template.from_code(twin, code, dict(twin.globals))
    parts = []
    size = 0
    for part in template.root_render_func(template.new_context(dict(variables))):
        size += len(part)
        meter.room_for(size)
        parts.append(part)
    return "".join(parts)


# --- what the compiled code reports --------------------------------------------------------------


class _Instrument(NodeTransformer):
    """Adds the reports to a parsed template. The names of the methods are Jinja's."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        step = _filter("_step", nodes.Const(True), node)
        node.body.insert(0, nodes.ExprStmt(step).set_lineno(node.lineno))
        if node.test is not None:
            node.test = nodes.And(_filter("_step", nodes.Const(True), node), node.test)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes)
        parts.set_lineno(node.lineno)
        return _filter("_joined", parts, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return node if _is_constant(node.items) else _filter("_made", node, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        constant = node.ctx != "load" or _is_constant(node.items)
        return node if constant else _filter("_made", node, node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        constant = _is_constant([pair.value for pair in node.items])
        return node if constant else _filter("_made", node, node)


def _filter(name: str, value: nodes.Expr, at: nodes.Node) -> nodes.Filter:
    node = nodes.Filter(value, name, [], [], None, None)
    node.set_lineno(at.lineno)
    return node


def _is_constant(items: list[nodes.Expr]) -> bool:
    return all(isinstance(item, nodes.Const) for item in items)


# They take the context only so that Jinja does not evaluate them while it compiles.


@jinja2.pass_context
def _step(context: Context, value: Any) -> Any:
    context.environment.meter.step()  # type: ignore[attr-defined]
    return value


@jinja2.pass_context
def _made(context: Context, value: Any) -> Any:
    return context.environment.meter.made(value)  # type: ignore[attr-defined]


@jinja2.pass_context
def _joined(context: Context, parts: list[Any]) -> str:
    meter: Meter = context.environment.meter  # type: ignore[attr-defined]
    meter.room_for(sum(map(meter.weigh, parts)) - 2 * len(parts))
    join = markup_join if context.eval_ctx.autoescape else str_join
    return str(meter.made(join(parts)))


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is counted, and sized before it is applied where that is needed."""
    gate = FILTER_GATES.get(name)
    wants = getattr(function, "jinja_pass_arg", None)
    kind = None if wants is None else wants.name

    @jinja2.pass_context
    def metered(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter: Meter = context.environment.meter  # type: ignore[attr-defined]
        meter.step()
        if gate is not None:
            value = gate(meter, value, *args, **kwargs)
        if kind is None:
            return meter.made(function(value, *args, **kwargs))
        given = {
            "context": context,
            "eval_context": context.eval_ctx,
            "environment": context.environment,
        }[kind]
        return meter.made(function(given, value, *args, **kwargs))

    return metered


# --- what templates expect beyond Jinja ----------------------------------------------------------


class _GenerationTag(Extension):
    """``{% generation %}`` marks what a model wrote, for training; here it only makes a scope."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Dict:
    """The type ``dict``, without the methods that change the dict they are given."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """Jinja's namespace without private names, and without its contents when printed."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # No parameter has a name, so that a template may use any, `self` too.
        Namespace.__init__(*args, **kwargs)
        for name in dict(*args[1:], **kwargs):
            _check_name(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError("a namespace takes no names that begin with `_`")


def _raise_exception(message: object = "") -> None:
    raise RaisedError(str(message))


def _strftime(now: Callable[[], datetime]) -> Callable[[str], str]:
    def strftime_now(format: str) -> str:  # noqa: A002  (templates may pass it by name)
        if len(format) > _MAX_FORMAT_CHARACTERS or _WIDE_DATE.search(format):
            raise LimitExceededError("it asks for a date in too long a format")
        return now().strftime(format)

    return strftime_now


_SAFE_INDENT = 32


@jinja2.pass_environment
def _tojson(
    environment: Sandbox,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes, as chat templates expect it; bounded while it is written."""
    if (len(indent) if isinstance(indent, str) else indent or 0) > _SAFE_INDENT:
        raise LimitExceededError("it indents JSON too far")
    if separators is not None and max(map(len, separators)) > _SAFE_INDENT:
        raise LimitExceededError("it separates JSON too far")
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    meter = environment.meter
    meter.room_for(meter.weigh(value))
    if indent is None:
        return encoder.encode(value)
    parts = []
    size = 0
    for part in encoder.iterencode(value):  # depth times indentation: no bound beforehand
        size += len(part)
        meter.room_for(size)
        parts.append(part)
    return "".join(parts)
