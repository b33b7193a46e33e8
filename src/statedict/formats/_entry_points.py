"""Formats that other distributions add: the entry points of the group `statedict.formats`.

An entry point names a Format. Entry points are looked up only for what no built-in format recognises, so plugins
cost nothing otherwise, and cannot replace a built-in format. Any failure of a plugin is reported as an error
of the plugin, and does not keep other plugins from working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from statedict.files import File, Folder
from statedict.state import Leaf, arguments, check_reach

from ..errors import FormatError, PluginError, SaveError, StateDictError, UnknownFormatError
from ._format import Format, close_with, function
from ._limits import Limits
from .checkpoint._checkpoint import Checkpoint, Finding
from .checkpoint._walk import leaves

GROUP = "statedict.formats"


class Plugin(NamedTuple):
    """An entry point, and how errors name it: `flax (statedict-flax 0.1)`."""

    label: str
    entry: EntryPoint

    def format(self) -> Format:
        """Import and return the Format; raise PluginError if this fails, or if it is something else."""
        with self.blamed("cannot be loaded"):
            found = self.entry.load()
        if not isinstance(found, Format):
            raise PluginError(self.label, f"provides {arguments.a(found)}, not a statedict.formats.Format")
        return found

    @contextmanager
    def blamed(self, what: str, file: str | None = None) -> Iterator[None]:
        """Raise PluginError for an error of the plugin in the `with` block. Errors of the disk, lack of memory, and what the
        plugin raises on purpose are not changed, except that the file is filled in.
        """
        try:
            yield
        except FormatError as error:
            raise error.located(file=file) from error.__cause__
        except (StateDictError, OSError, MemoryError):
            raise
        except Exception as error:  # a plugin can raise anything
            raise PluginError(self.label, f"{what}: {type(error).__name__}: {error}", file=file) from error


def plugins() -> list[Plugin]:
    """Return the plugins of this environment, by name."""
    found = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    return [Plugin(_label(entry), entry) for entry in found]


def read_by_plugin(
    source: File | Folder, name: str, fits: Callable[[Format], bool], limits: Limits, unknown: UnknownFormatError
) -> Checkpoint:
    """Read a file or folder with the first plugin that fits; if there is none, raise `unknown`, and name those tried.

    `name` is that of the source, for messages.
    """
    tried: list[str] = []
    for plugin in plugins():
        try:
            row = plugin.format()
            with plugin.blamed("failed to recognise files"):
                recognised = fits(row)
        except StateDictError as error:
            tried.append(f"{plugin.label}, which failed: {error}")
            continue
        try:
            if recognised:
                return close_with(_read(plugin, row, source, name, limits), source)
            tried.append(plugin.label)
        except UnknownFormatError as error:
            if error.file != name:
                raise
            tried.append(f"{plugin.label}: {error.reason}")
    if tried:
        unknown.reason += f"; it was not recognised by the plugins either: {'; '.join(tried)}"
    raise unknown


def plugin_writer(fits: Callable[[Format], bool]) -> tuple[Format | None, list[str]]:
    """Return the first Format of a plugin that fits and can be written, or None, and the plugins that were tried."""
    tried: list[str] = []
    for plugin in plugins():
        try:
            row = plugin.format()
        except StateDictError as error:
            tried.append(f"{plugin.label}, which failed: {error}")
            continue
        if row.write and fits(row):
            return row._replace(write=partial(_write, plugin, row)), tried
        tried.append(plugin.label)
    return None, tried


def _read(plugin: Plugin, row: Format, source: File | Folder, name: str, limits: Limits) -> Checkpoint:
    with plugin.blamed("failed", name):
        checkpoint = function(row.read)(source, limits)
        if not isinstance(checkpoint, Checkpoint):
            raise PluginError(plugin.label, f"returned {arguments.a(checkpoint)}, not a Checkpoint", file=name)
        for path, leaf in leaves(checkpoint.object):
            try:
                check_reach(leaf.spec, leaf.storage)
            except StateDictError as error:
                raise PluginError(
                    plugin.label, f"returned an invalid tensor: {error}", file=name, member=path
                ) from error
    checkpoint._checks = partial(_checks, plugin, checkpoint._checks, name)
    return checkpoint


def _checks(plugin: Plugin, checks: Callable[[], Iterable[Finding]], file: str) -> list[Finding]:
    with plugin.blamed("failed to verify this file", file):
        return list(checks())


def _write(plugin: Plugin, row: Format, obj: Any, metadata: Mapping[str, str] | None) -> list[bytes | Leaf]:
    try:
        with plugin.blamed("failed"):
            content = list(function(row.write)(obj, metadata))
        for item in content:
            if not isinstance(item, (bytes, Leaf)):
                raise PluginError(plugin.label, f"returned {arguments.a(item)} as a part of the file")
        return content
    except PluginError as error:
        raise SaveError(str(error)) from error


def _label(entry: EntryPoint) -> str:
    return f"{entry.name} ({entry.dist.name} {entry.dist.version})" if entry.dist is not None else entry.name
