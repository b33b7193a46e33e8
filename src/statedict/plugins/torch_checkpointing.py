"""Read directories of Meta's torch_checkpointing. (docs/formats/torch-checkpointing.md)

An item (`model`, `optim`, `step` …) has one file for each rank that saved it: `<item>_<rank>.pt`, or what its layout says.
Files of torch.save contain DTensors, which describe themselves; safetensors files contain bare local tensors. `metadata.pkl`
says for items that can be resharded which part of each tensor a rank has, and where its file is. Synchronous saves do not
write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from statedict.errors import FormatError, LimitError, UnknownFormatError
from statedict.formats import (
    Checkpoint,
    Finding,
    Folder,
    Limits,
    Parts,
    join_ranks,
    open,
    tensors,
)

from ._torch_checkpointing_parts import (
    Described,
    Shardings,
    container_of,
    described,
    json_in,
    part_of,
    shown,
    typed,
    with_params,
)

METADATA = "metadata.pkl"
VERSION = "2.0"
OF_A_RANK = re.compile(r"(?P<item>[A-Za-z0-9_-]+)_(?P<rank>\d{1,7})\.(?:pt|safetensors|json)")
OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")
# Enough of a file to find the classes in its pickle, and the keys of the metadata.
HEAD = 1 << 16
LONGEST = 4096

Places = dict[int, str]  # the file of each rank


def holds(folder: Folder) -> bool:
    """Return whether a folder was saved by torch_checkpointing, by its metadata, or by the names and kinds of its files."""
    if METADATA in folder.files:
        head = _head(folder, METADATA)
        return b"nested_path_to_metadata" in head or b"rank_to_layout_info" in head
    items = _named_items(folder)
    ranks = {frozenset(places) for places in items.values()}
    others = any(name.endswith(OTHER_WEIGHTS) and not OF_A_RANK.fullmatch(name) for name in folder.files)
    if len(items) < 2 or len(ranks) > 1 or others or min(ranks) != frozenset(range(len(min(ranks)))):
        return False
    # Files of several numbers are of ranks if they contain DTensors; otherwise they may be of steps.
    return ranks == {frozenset({0})} or any(b"torch.distributed.tensor" in _head(folder, p[0]) for p in items.values())


def read_checkpoint(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a folder; its roots are the items.

    An item that cannot be read is left out; if none can be, the error of the first one is raised.
    """
    reader = _Reader(folder, limits)
    items = {**reader.described_items(), **{k: v for k, v in _named_items(folder).items() if k not in reader.described}}
    tree: dict[str, Any] = {}
    failed: dict[str, FormatError | OSError] = {}
    for item, places in items.items():
        try:
            tree[item] = reader.item(item, places)
        except LimitError:
            raise
        except (FormatError, OSError) as error:
            failed[item] = error
    if not tree:
        raise next(iter(failed.values()), UnknownFormatError("this directory contains no items", file=folder.path))
    return Checkpoint(
        folder.path,
        "torch-checkpointing",
        tree,
        size=sum(checkpoint.size for _, checkpoint in reader.opened),
        producer="torch_checkpointing",
        globals=list(dict.fromkeys(named for _, checkpoint in reader.opened for named in checkpoint.globals)),
        notes=[*reader.notes, *(f"{problem.where}: {problem.text}" for problem in reader.problems)],
        checks=partial(_check, tree, reader, failed),
        unopened=failed,
    )


class _Reader:
    """Reads the items of one folder.

    Attributes:
        described: the items in the metadata.
        opened: the item and Checkpoint of each file.
        problems: files that are missing or cannot be read.
    """

    def __init__(self, folder: Folder, limits: Limits) -> None:
        self.opened: list[tuple[str, Checkpoint]] = []
        self.notes: list[str] = []
        self.problems: list[Finding] = []
        self._folder = folder
        self._limits = limits
        self._shardings = Shardings()
        self.described: dict[str, Described] = self._metadata() if METADATA in folder.files else {}

    def _metadata(self) -> dict[str, Described]:
        opened = open(self._folder.file(METADATA), limits=self._limits)
        self.opened.append((METADATA, opened))
        found = opened.object
        if not isinstance(found, dict) or found.get("version") != VERSION:
            version = found.get("version") if isinstance(found, dict) else None
            raise FormatError(
                f"unsupported version {shown(version)} of the metadata; {VERSION!r} is supported", file=opened.path
            )
        try:
            entries = typed(found.get("metadata"), dict, METADATA).items()
            return {str(item): described(entry, str(item)) for item, entry in entries}
        except FormatError as error:
            raise error.located(file=opened.path) from None

    def described_items(self) -> dict[str, Places]:
        """Return the files of the items in the metadata."""
        items: dict[str, Places] = {}
        owners: set[str] = set()
        for item, entry in self.described.items():
            # Only files of ranks that have a tensor of the item are needed; an item without tensors may be on any rank.
            ranks = {rank for groups in entry.tensors.values() for group in groups for rank in group.ranks}
            layouts = entry.layouts
            items[item] = {rank: self._path(layouts.get(rank), item, rank) for rank in sorted(ranks or layouts)}
            if len(set(items[item].values())) < len(items[item]) or not owners.isdisjoint(items[item].values()):
                raise FormatError("the metadata gives a file to several ranks", file=self._folder.path, member=item)
            owners.update(items[item].values())
        return items

    def _path(self, layout: Any, item: str, rank: int) -> str:
        """Return the path of a rank's file; raise FormatError if it leads outside of the folder."""
        path = f"{item}_{rank}.pt" if layout is None else layout.get("file_path") if isinstance(layout, dict) else None
        if not isinstance(path, str) or not _is_inside(path):
            raise FormatError(
                f"the metadata places rank {rank} in {shown(path)}, which is not a file of the folder",
                file=self._folder.path,
                member=item,
            )
        return path

    def item(self, item: str, places: Places) -> Any:
        """Return the value of an item, joined from the files of its ranks."""
        trees: list[Any] = []
        for rank, path in places.items():
            try:
                tree = self._file(item, path)
            except LimitError:
                raise
            except (FormatError, OSError) as problem:
                what = "is missing" if isinstance(problem, FileNotFoundError) else f"cannot be read: {problem}"
                self.problems.append(Finding("error", item, f"{path}, the file of rank {rank}, {what}"))
                continue
            trees.append(self._place(item, rank, tree, path) if item in self.described else tree)
        if not trees:
            reasons = "; ".join(found.text for found in self.problems if found.where == item)
            raise FormatError(reasons or "no rank has a file of it", file=self._folder.path, member=item)
        several = len(places) > 1 and item not in self.described
        if several and any(path.endswith(".safetensors") for path in places.values()):
            raise UnknownFormatError(
                f"its {len(places):,} files do not say which part of each tensor they contain", file=self._folder.path,
                member=item, hint="torch_checkpointing writes this if the item has a resharder and the save is asynchronous",
            )  # fmt: skip
        if several and not any(isinstance(value, Parts) for _, value in tensors(trees[0])):
            self.notes.append(f"{item}: the values are those of the first of {len(places):,} ranks")
        return with_params(join_ranks(trees, f"{self._folder.path}: {item}"))

    def _file(self, item: str, path: str) -> Any:
        """Return the content of a file."""
        *above, name = path.split("/")
        folder = self._folder
        for step in above:
            folder = folder.folder(step)
        file = folder.file(name)
        if name.endswith(".json"):
            if file.size > self._limits.json_bytes:
                raise self._limits.exceeded("json_bytes", f"JSON of {file.size:,} bytes").located(file=file.name)
            try:
                return json_in(file.read(0, file.size))
            except FormatError as error:
                raise error.located(file=file.name) from None
        opened = open(file, limits=self._limits)
        self.opened.append((item, opened))
        return opened.object

    def _place(self, item: str, rank: int, tree: Any, path: str) -> Any:
        """Return the content of a rank's file with Parts in place of its local tensors, as the metadata describes them.

        Raises FormatError if the two contradict each other.
        """
        holder = {item: tree}
        for text, groups in self.described[item].tensors.items():
            group = next((group for group in groups if rank in group.ranks), None)
            if group is not None:
                file = self._folder.path_of(path)
                try:
                    container, key = container_of(holder, item, text)
                    sharding = self._shardings.of(group.sharding, rank)
                    container[key] = part_of(container[key], sharding, f"{file}: {text}")
                except (FormatError, ValueError) as error:
                    raise FormatError(
                        f"the metadata contradicts it: {error}", file=file, member=text[:LONGEST]
                    ) from error
        return holder[item]


def _named_items(folder: Folder) -> dict[str, Places]:
    """Return the files of each item, by their names, in the order of ranks."""
    found: dict[str, Places] = {}
    for match in filter(None, map(OF_A_RANK.fullmatch, folder.files)):
        found.setdefault(match["item"], {})[int(match["rank"])] = match[0]
    return {item: dict(sorted(places.items())) for item, places in found.items()}


def _is_inside(path: str) -> bool:
    """Return whether a path from the metadata is one of a file in the folder, on any operating system."""
    plain = len(path) <= LONGEST and path.isprintable() and not set(path) & {"\\", ":"}
    return plain and not any(step in ("", ".", "..") for step in path.split("/"))


def _head(folder: Folder, name: str) -> bytes:
    """Return the first bytes of a file; none if it cannot be read."""
    try:
        file = folder.file(name)
        return file.read(0, min(file.size, HEAD))
    except (FormatError, OSError):
        return b""


def _check(tree: Any, reader: _Reader, failed: Mapping[str, FormatError | OSError]) -> Iterator[Finding]:
    for item, error in failed.items():
        yield Finding.of(item, error)
    yield from reader.problems
    for path, value in tensors(tree):
        if isinstance(value, Parts):
            yield Finding("error", path, "parts of this tensor are missing")
    for item, checkpoint in reader.opened:
        for finding in checkpoint.verify():
            if finding.level != "note" and finding.where != "imports":
                yield finding._replace(where=f"{item}/{finding.where}", text=f"{checkpoint.path}: {finding.text}")
