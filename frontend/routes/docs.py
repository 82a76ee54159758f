"""``GET /openapi.json`` and ``GET /docs``: the OpenAPI document, and a page to read it.

``frontend/page.py`` says how pages are served.
"""

import falcon

from frontend.answers import JSON
from frontend.openapi.document import render
from frontend.page import Page
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


class Docs(Page):
    """The page; it fetches the document itself."""

    def __init__(self) -> None:
        super().__init__("openapi/docs.html")
