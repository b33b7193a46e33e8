"""Commands of click, declared by type hints: `root: Annotated[str, Option(metavar="PATH", help="…")] = ""`.

Typer does the same, but it imports pydantic, which takes nearly as long as importing NumPy (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import Parameter, cleandoc, signature
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from click.shell_completion import CompletionItem

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}
RANGES: dict[Any, Callable[..., click.ParamType[Any]]] = {int: click.IntRange, float: click.FloatRange}


class Argument:
    """A positional argument, described beyond its type and name; `settings` are those of click.

    `completed` returns the values that begin with a text; without it, shells complete the names of files.
    """

    def __init__(
        self,
        *names: str,
        min: int | None = None,
        completed: Callable[[str], Iterable[str]] | None = None,
        **settings: Any,
    ) -> None:
        self.names, self.min, self._completed, self.settings = names, min, completed, settings

    def complete(self, context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        """Return what a shell offers after `begun`."""
        if self._completed is None:
            return [CompletionItem(begun, type="file")]
        return [CompletionItem(value) for value in self._completed(begun)]


class Option(Argument):
    """An option, described in the same way; by default it has the name of the parameter."""


class Command(click.Command):
    """A command whose help ends with its examples, each in one line that can be copied, however narrow the terminal is."""

    def __init__(self, function: Callable[..., None]) -> None:
        text, _, examples = cleandoc(function.__doc__ or "").partition("Examples:\n")
        hints = get_type_hints(function, include_extras=True)
        parameters = [_parameter(each, *get_args(hints[name])) for name, each in signature(function).parameters.items()]
        super().__init__(function.__name__, CONTEXT, function, parameters, text, examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        lines = [f"  {line.strip()}\n" for line in (self.epilog or "").splitlines() if line.strip()]
        formatter.write("".join(["\nExamples:\n", *lines]))


def _parameter(found: Parameter, kind: Any, declared: Argument) -> click.Parameter:
    """Return click's parameter for one of a function."""
    kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind  # `str | None`
    repeated = get_origin(kind) is tuple  # of any length
    kind = get_args(kind)[0] if repeated else kind
    settings = {"type": _type(kind, declared.min), **declared.settings}
    if kind is not bool:
        settings["shell_complete"] = declared.complete
    if found.default is not Parameter.empty:
        settings["default"] = found.default
    if not isinstance(declared, Option):
        metavar = settings["metavar"] if "default" not in settings else f"[{settings['metavar']}]"
        settings["metavar"] = f"{metavar}..." if repeated else metavar
        return click.Argument([found.name], nargs=-1 if repeated else 1, **settings)
    names = declared.names or [f"--{found.name.replace('_', '-')}"]
    required = found.default is Parameter.empty
    return click.Option([found.name, *names], is_flag=kind is bool, multiple=repeated, required=required, **settings)


def _type(kind: Any, least: int | None) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is Path:
        return click.Path(path_type=Path)
    return kind if least is None else RANGES[kind](min=least)
