"""``GET /playground``: a page to try the model with, in a browser.

There only if the settings say so; ``frontend/page.py`` says how pages are served.
"""

from frontend.page import Page


class Playground(Page):
    """The page; it talks to the same routes as every client, with the key typed into it."""

    def __init__(self) -> None:
        super().__init__("playground/playground.html")
