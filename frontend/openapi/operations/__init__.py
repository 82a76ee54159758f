"""The one list of operations: each route and method, what it takes and what it answers.

A test compares it with the routes of the application: a new route needs one entry in one of these
files.
"""

from frontend.openapi.operations.anthropic import ANTHROPIC
from frontend.openapi.operations.native import GENERATING, TOKENIZING
from frontend.openapi.operations.openai import OPENAI
from frontend.openapi.operations.operation import Operation
from frontend.openapi.operations.platforms import PLATFORMS
from frontend.openapi.operations.server import SERVER

TAGS = {
    "Generation": "Text Generation Inference's own interface.",
    "OpenAI": "The interface of OpenAI, for its clients: the base URL ends with `/v1`.",
    "Anthropic": "The interface of Anthropic, for its clients: the base URL is this server's.",
    "Tokens": "Text to tokens, without generating anything.",
    "Platforms": "What hosting platforms expect a model server to answer.",
    "Server": "What this server is and how it is doing.",
    "Documentation": "This document, and pages for browsers.",
}

OPERATIONS: tuple[Operation, ...] = (
    *GENERATING,
    *OPENAI,
    *ANTHROPIC,
    *TOKENIZING,
    *PLATFORMS,
    *SERVER,
)
