"""The program: the table of its commands, and the one place where errors become words.

A user's mistake is one clear line on standard error and exit code 2, never a traceback; a traceback is a fault of ours.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import StateDictError
from ._streams import one_line, tell


class Program(TyperGroup):
    """The commands; what one of them raises becomes a line and an exit code.

    Here, and not around the whole program, because Typer has a meaning of its own for some of the builtins that our errors
    are: an EOFError (a truncated file) is to it the end of the user's input. A command is imported when it is asked for: all
    of them are as much as the rest of the program.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # For a name that is none, near ones are looked for among all.
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.add_command(_built(name), name)
        return super().get_command(ctx, cmd_name)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _told():  # --help prints while the arguments are read
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _told():
            return super().invoke(ctx)


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors of the `with` block into a line on standard error, and an exit code."""
    try:
        yield
    except SystemExit as ended:  # how rich ends where it meets a closed pipe
        if isinstance(ended.__context__, BrokenPipeError):
            raise typer.Exit(CLOSED_PIPE) from ended
        raise
    except (StateDictError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            # The reader of our output (`| head`) has had enough. What is left to write goes nowhere, so that the
            # interpreter does not complain of it either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED_PIPE) from error
        tell(f"statedict: {one_line(error)}", err=True)
        raise typer.Exit(2) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments (`sys.argv[1:]` where None) name, and exit with its code.

    Exits with 0; 1 where the answer is no; 2 for a mistake in the call or the file; 130 when interrupted; 141 when the
    reader of its output has closed the pipe.

    >>> main(["inspect", "no-such-file.pt"])
    Traceback (most recent call last):
      ...
    SystemExit: 2
    """
    app(args=None if arguments is None else list(arguments), prog_name="statedict")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"statedict {version('statedict')}")
        raise typer.Exit


def _program(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Look into, check, convert, compare and combine files that hold the state of neural networks. Needs no PyTorch."""


def _built(name: str) -> Any:
    """The command of that name: the function of that name in the file of that name."""
    alone = typer.Typer(add_completion=False, **SETTINGS)
    alone.command()(getattr(import_module(f"._{name}", __package__), name))
    return typer.main.get_command(alone)


COMMANDS = ("inspect", "view", "verify", "convert", "diff", "merge", "match", "runs", "tour")
# As a shell has it for a program that the signal ended.
CLOSED_PIPE = 128 + signal.SIGPIPE
SETTINGS: dict[str, Any] = {
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(cls=Program, callback=_program, no_args_is_help=True, **SETTINGS)
