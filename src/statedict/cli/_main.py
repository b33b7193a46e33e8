"""The program: the table of its commands, and the place where errors become messages.

A user's mistake gives a message on standard error and exit code 2: a box from Typer for a mistake in the arguments, one line
for everything else. A traceback is always a bug in this program.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from shutil import get_terminal_size
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import statedict

from ..errors import StateDictError
from ._files import note, one_line


class PlainHelp:
    """Part of a command or group whose help does not show Python types: `<bool>` after a flag, `<str>` after an argument.

    Typer does so since 0.29, and writes `{FILE}` in the usage line.
    """

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                setattr(param, "metavar", "")  # noqa: B010
            elif param.param_type_name == "argument":
                setattr(param, "display_type_rich", lambda ctx: None)  # noqa: B010
        return params

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [piece.replace("{", "").replace("}", "") for piece in pieces]


class CommandWithExamples(PlainHelp, TyperCommand):
    """A command whose help ends with its examples, each in one line that can be copied, however narrow the terminal is.

    In a terminal narrower than NARROW, the rest is not in Typer's tables, which would cut the names of options.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if get_terminal_size().columns < NARROW:
            self.rich_markup_mode = None
        whole = self.help or ""
        self.help, heading, examples = whole.partition("Examples:")
        try:
            super().format_help(ctx, formatter)
        finally:
            self.help = whole
        if heading:
            lines = [f"   {line.strip()}" for line in examples.splitlines() if line.strip()]
            formatter.write("\n".join(["", f" {heading}", "", *lines]))


class Program(PlainHelp, TyperGroup):
    """The commands; an exception in one becomes a message and an exit code.

    Exceptions are handled here, not around the whole program, because Typer handles some of their builtin base classes
    itself: for an EOFError (a truncated file), it assumes the end of the user's input. A command is imported on first use,
    because importing all of them takes as long as the rest of the program.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # For an unknown name, all commands are loaded, so that similar names can be suggested.
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.add_command(_built(name), name)
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        # `statedict model.pt` inspects that file. No command has a dot or a slash in its name.
        if args and not args[0].startswith("-") and args[0] not in COMMANDS and _is_path(args[0]):
            args = ["inspect", *args]
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _errors_reported():  # --help prints while the arguments are parsed
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _errors_reported():
            return super().invoke(ctx)


def _is_path(argument: str) -> bool:
    return "." in argument or "/" in argument or os.path.exists(argument)


@contextmanager
def _errors_reported() -> Iterator[None]:
    """Turn the errors of the `with` block into a line on standard error, and an exit code."""
    try:
        yield
    except SystemExit as ended:  # rich raises this when the pipe is closed
        if isinstance(ended.__context__, BrokenPipeError):
            raise typer.Exit(CLOSED_PIPE) from ended
        raise
    except (StateDictError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            # The reader (`| head`) has closed the pipe. The rest of the output is discarded, so that the interpreter does
            # not report an error when it flushes.
            with open(os.devnull, "w") as devnull:
                os.dup2(devnull.fileno(), sys.stdout.fileno())
            raise typer.Exit(CLOSED_PIPE) from error
        note(one_line(error))
        raise typer.Exit(2) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command given by the arguments (by default `sys.argv[1:]`), and exit with its code.

    The exit code is 0; 1 if the answer is no; 2 for an error in the arguments or the file; 130 if interrupted; 141 if the
    output pipe was closed.

    >>> main(["inspect", "no-such-file.pt"])
    Traceback (most recent call last):
      ...
    SystemExit: 2
    """
    app(args=None if arguments is None else list(arguments), prog_name="statedict")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"statedict {statedict.__version__}")
        raise typer.Exit


def _program(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Inspect, verify, convert, compare and merge checkpoint files of neural networks. Does not need PyTorch.

    `statedict FILE` is short for `statedict inspect FILE`.
    """


def _built(name: str) -> Any:
    """Return the command of that name: the function of that name in the file `_NAME.py`."""
    alone = typer.Typer(add_completion=False, **SETTINGS)
    alone.command(cls=CommandWithExamples)(getattr(import_module(f"._{name}", __package__), name))
    return typer.main.get_command(alone)


COMMANDS = ("inspect", "view", "verify", "convert", "diff", "merge", "match", "maps", "runs", "doctor", "tour")
# The width that the longest option, with its value and some words of its help, needs.
NARROW = 70
# The exit code that a shell reports for a program ended by SIGPIPE.
CLOSED_PIPE = 128 + 13
SETTINGS: dict[str, Any] = {
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(cls=Program, callback=_program, no_args_is_help=True, **SETTINGS)
