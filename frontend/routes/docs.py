"""``GET /openapi.json`` and ``GET /docs``: the OpenAPI document, and a page to read it.

The page needs nothing from elsewhere, and its policy lets the browser load and run nothing that is
not part of it.
"""

import base64
import hashlib
import re
from importlib import resources

import falcon

from frontend.answers import JSON
from frontend.openapi.document import render
from frontend.services import Services


class OpenApi:
    """The document; made when it is first asked for."""

    def __init__(self, services: Services) -> None:
        self._version = services.version
        self._document: bytes | None = None

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The same for every client."""
        if self._document is None:
            self._document = render(self._version)
        resp.data = self._document
        resp.content_type = JSON

    on_head = on_get


class Docs:
    """The page; it fetches the document itself."""

    def __init__(self) -> None:
        self._page = resources.files("frontend.openapi").joinpath("docs.html").read_bytes()
        self._policy = content_security_policy(self._page.decode())

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """One HTML file."""
        resp.data = self._page
        resp.content_type = falcon.MEDIA_HTML
        resp.set_header("Content-Security-Policy", self._policy)
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Referrer-Policy", "no-referrer")

    on_head = on_get


def content_security_policy(page: str) -> str:
    """What the page may do: run and look as it is written, and talk to the server it is from."""
    script, style = (_hash_of(page, tag) for tag in ("script", "style"))
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{script}'",
            f"style-src '{style}'",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hash_of(page: str, tag: str) -> str:
    """Of the text inside the page's one element of that name, as the policy writes it."""
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
