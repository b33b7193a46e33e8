"""The program: the table of its commands, and the place where errors become messages.

A user's mistake gives a message on standard error and exit code 2: with the usage for a mistake in the arguments, one line
for everything else. A traceback is always a bug in this program.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

import statedict

from ..errors import StateDictError
from ._command import CONTEXT, Command
from ._files import note, one_line


class Program(click.Group):
    """The commands; an exception in one becomes a message and an exit code.

    Exceptions are handled here, not around the whole program, because click handles some of their builtin base classes
    itself: for an EOFError (a truncated file), it assumes the end of the user's input. A command is imported on first use,
    because importing all of them takes as long as the rest of the program.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # For an unknown name, all commands are loaded, so that similar names can be suggested.
        for name in [cmd_name] if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.add_command(Command(getattr(import_module(f"._{name}", __package__), name)))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: click.HelpFormatter) -> None:
        # Click would cut each text at the end of the line.
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.get_command(ctx, name).get_short_help_str(1000)) for name in COMMANDS])

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if not args:
            args = ["--help"]
        # `statedict model.pt` inspects that file. No command has a dot or a slash in its name.
        if not args[0].startswith("-") and args[0] not in COMMANDS and _is_path(args[0]):
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
            raise click.exceptions.Exit(CLOSED_PIPE) from ended
        raise
    except (StateDictError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            # The reader (`| head`) has closed the pipe. The rest of the output is discarded, so that the interpreter does
            # not report an error when it flushes.
            with open(os.devnull, "wb") as devnull:
                os.dup2(devnull.fileno(), sys.stdout.fileno())
            raise click.exceptions.Exit(CLOSED_PIPE) from error
        note(one_line(error))
        raise click.exceptions.Exit(2) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command given by the arguments (by default `sys.argv[1:]`), and exit with its code.

    The exit code is 0; 1 if the answer is no; 2 for an error in the arguments or the file; 130 if interrupted; 141 if the
    output pipe was closed.

    >>> main(["inspect", "no-such-file.pt"])
    Traceback (most recent call last):
      ...
    SystemExit: 2
    """
    if arguments is None:  # this process only runs this program
        gc.set_threshold(GARBAGE)
        if isinstance(sys.stdout, io.TextIOWrapper):
            # In a pipe on Windows, the encoding lacks most of the characters that names can have.
            sys.stdout.reconfigure(errors="backslashreplace")
    app(args=None if arguments is None else list(arguments), prog_name="statedict")


@click.group(cls=Program, context_settings=CONTEXT)
@click.version_option(statedict.__version__, message="statedict %(version)s")
def app() -> None:
    """Inspect, verify, convert, compare and merge checkpoint files of neural networks. Does not need PyTorch.

    `statedict FILE` is short for `statedict inspect FILE`.
    """


COMMANDS = ("inspect", "view", "verify", "convert", "diff", "merge", "match", "maps", "runs", "doctor", "tour")
# New objects before a search for garbage in cycles. With Python's default, 700, the searches take a sixth of the time for
# 100,000 names ("Many names" in docs/performance.md).
GARBAGE = 100_000
# The exit code that a shell reports for a program ended by SIGPIPE.
CLOSED_PIPE = 128 + 13
