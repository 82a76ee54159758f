"""Triton's interpreter, with less to do: a third of its time went into looking at its language.

Whenever a kernel or a function of one is called, it goes through all of ``triton.language`` for the
builtins that it replaces. Which these are is known after the first time.
"""

import inspect
from typing import Any

from triton.language.core import is_builtin
from triton.runtime import interpreter


class Patch:
    """As ``interpreter._patch_builtin``: replaces the builtins of a module or class."""

    def __init__(self) -> None:
        self._names: dict[object, list[str]] = {}

    def __call__(self, package: object, *others: Any) -> None:
        if package not in self._names:
            members = inspect.getmembers(package, is_builtin)
            self._names[package] = [name for name, _ in members]
        for name in self._names[package]:
            member = getattr(package, name)
            if is_builtin(member):  # else it is replaced already
                interpreter._patch_attr(package, name, member, *others)
