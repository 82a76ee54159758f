"""``Page``: serves an HTML file of this package, with a policy that confines it to itself.

Runs in the front ends. The page needs nothing from elsewhere; the browser may run its one script
and its one style sheet, known by their hashes, and may talk to the server that it came from.
Knows nothing of what the pages do.
"""

import base64
import hashlib
import re
from importlib import resources

import falcon


class Page:
    """``GET`` of one file; every client gets the same."""

    def __init__(self, path: str) -> None:
        """``path`` is relative to the package ``frontend``."""
        self._page = resources.files("frontend").joinpath(path).read_bytes()
        self._policy = content_security_policy(self._page.decode())

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The file, and what the browser may do with it."""
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
