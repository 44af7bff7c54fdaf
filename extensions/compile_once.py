"""Strings that are rendered again are not compiled again."""

from __future__ import annotations

from functools import cache
from types import CodeType

from jinja2 import Environment
from jinja2.ext import Extension


class CompileOnce(Extension):
    """Copier compiles each part of the path of each file, also of those that it leaves out.

    With three frameworks side by side that took a third of ``copier copy``; a template's name is
    the only other thing that goes into its code.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        compiled = cache(environment.compile)

        def compile_once(
            source: str, name: str | None = None, filename: str | None = None
        ) -> CodeType:
            environment.preprocess(source, name, filename)  # where other extensions begin anew
            return compiled(source, name, filename)

        environment.compile = compile_once  # type: ignore[assignment, method-assign]
