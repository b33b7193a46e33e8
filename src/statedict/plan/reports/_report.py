"""LoadReport: the result of a load, for people, for programs, and for code written for PyTorch's result.

It behaves as the result of PyTorch's `Module.load_state_dict`: a pair of lists that unpacks, compares, counts and prints in
the same way. The further attributes do not change that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import isfinite
from typing import Any, NamedTuple

from statedict.state import Cast, Patterns, matcher

from ..operations._specs import Shape
from ..tensors._step import Mismatch
from ._attempt import Attempt, Proposal
from ._suggest import Suggestion, Works, suggest


def plain(value: Any) -> Any:
    """Convert named tuples to dicts, tuples to lists, infinite numbers and NaN to text (`"Infinity"`), recursively."""
    if hasattr(value, "_asdict"):
        return {key: plain(item) for key, item in value._asdict().items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return json.dumps(value) if isinstance(value, float) and not isfinite(value) else value


class Adapted(NamedTuple):
    """A tensor that was converted by a rule or adapted by a policy: its sources, and a text that says how."""

    name: str
    sources: tuple[str, ...]
    how: str


class LoadReport(tuple[list[str], list[str]]):
    """The result of a load. `ok` is True if nothing was missing, unexpected or mismatched.

    Attributes:
        loaded: names of the parameters and buffers that were loaded.
        missing_keys, missing: names in the model that are not in the source.
        unexpected_keys, unexpected: names in the source that are not in the model.
        mismatched: tensors of a different shape.
        errors: texts of all errors, as PyTorch words them.
        adapted: tensors that were converted by a rule or adapted by a policy.
        cast: tensors whose dtype changed.
        renamed: source name → name in the model, if they differ.
        tied: names that got their value from the tensor they are tied to, name → name.
        excluded: names that were excluded by `include` or `exclude`.
        skipped: tensors of a different shape that were skipped by a policy; the model keeps its values.
        allowed: missing and unexpected names that the caller allowed.
        notes: warnings, as text.
        root: the path of the state dict that was used; other_roots: those of the other state dicts in the source.
        dry_run: whether this is a forecast: nothing was loaded, and `loaded` lists what would be.
        suggestions: calls that would load everything, the best first. Each was tried.

    >>> report = LoadReport([], ["head.weight"], loaded=["encoder.weight"])
    >>> missing, unexpected = report
    >>> report.ok, unexpected
    (False, ['head.weight'])
    >>> LoadReport([], [])
    <All keys matched successfully>
    """

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __new__(cls, missing: Iterable[str] = (), unexpected: Iterable[str] = (), **facts: Any) -> LoadReport:
        return super().__new__(cls, (list(missing), list(unexpected)))

    def __init__(
        self,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        *,
        loaded: Iterable[str] = (),
        mismatched: Iterable[Mismatch] = (),
        errors: Iterable[str] = (),
        adapted: Iterable[Adapted] = (),
        cast: Iterable[Any] = (),
        renamed: Mapping[str, str] | None = None,
        tied: Mapping[str, str] | None = None,
        excluded: Iterable[str] = (),
        skipped: Iterable[Mismatch] = (),
        allowed: Iterable[str] = (),
        notes: Iterable[str] = (),
        shapes: Mapping[str, Shape] | None = None,
        root: str = "",
        other_roots: Iterable[str] = (),
        dry_run: bool = False,
        attempt: Attempt | None = None,
    ) -> None:
        self.missing_keys, self.unexpected_keys = self[0], self[1]
        self.loaded = list(loaded)
        self.mismatched = list(mismatched)
        self.errors = list(errors)
        self.adapted = list(adapted)
        self.cast = [Cast(*one) for one in cast]
        self.renamed = dict(renamed or {})
        self.tied = dict(tied or {})
        self.excluded = list(excluded)
        self.skipped = list(skipped)
        self.allowed = list(allowed)
        self.notes = list(notes)
        self.shapes = dict(shapes or {})
        self.root = root
        self.other_roots = list(other_roots)
        self.dry_run = dry_run
        self.attempt = attempt

    @property
    def missing(self) -> list[str]:
        """Names in the model that are not in the source: PyTorch's `missing_keys`."""
        return self.missing_keys

    @property
    def unexpected(self) -> list[str]:
        """Names in the source that are not in the model: PyTorch's `unexpected_keys`."""
        return self.unexpected_keys

    @property
    def ok(self) -> bool:
        """Whether nothing was missing, unexpected or mismatched, and there were no other errors."""
        return not (self.missing_keys or self.unexpected_keys or self.mismatched or self.errors)

    @cached_property
    def suggestions(self) -> list[Suggestion]:
        """Calls that would load everything, the best first. Each was tried."""
        attempt, self.attempt = self.attempt, None
        return [] if attempt is None or self.ok else suggest(self, attempt)

    def advise(
        self,
        works: Works,
        fixed: Mapping[str, Any],
        roots: Mapping[str, Mapping[str, Any]],
        known: Sequence[Proposal] = (),
    ) -> None:
        """Find the suggestions now, and try each with `works` (see `suggest`); `fixed` and `roots` are an Attempt's."""
        if self.attempt is not None and not self.ok:
            attempt, self.attempt = self.attempt, None
            attempt = replace(attempt, fixed=fixed, roots={**attempt.roots, **roots})
            self.__dict__["suggestions"] = suggest(self, attempt, works, known)

    def allowing(self, *, missing: Patterns = (), unexpected: Patterns = ()) -> LoadReport:
        """Return the report with the missing and unexpected names that match these patterns moved to `allowed`.

        >>> LoadReport(["head.weight"], []).allowing(missing="head").ok
        True
        """
        if not (any(self) and (missing or unexpected)):
            return self
        kept: tuple[list[str], list[str]] = [], []
        allowed: list[str] = []
        for names, fits, left in zip(self, (matcher(missing), matcher(unexpected)), kept):
            for name in names:
                (allowed if fits(name) else left).append(name)
        facts = {key: value for key, value in vars(self).items() if key not in ("suggestions", *_PAIR)}
        given = {"allow_missing": missing, "allow_unexpected": unexpected}
        attempt = self.attempt and self.attempt.with_options({name: some for name, some in given.items() if some})
        return LoadReport(*kept, **{**facts, "allowed": [*self.allowed, *allowed], "attempt": attempt})

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes as plain values, for JSON."""
        facts = {
            key: value for key, value in vars(self).items() if key not in ("suggestions", "shapes", "attempt", *_PAIR)
        }
        return {
            "ok": self.ok,
            "missing": self.missing_keys,
            "unexpected": self.unexpected_keys,
            **{key: plain(value) for key, value in facts.items()},
            "suggestions": plain(self.suggestions),
        }

    def __repr__(self) -> str:
        kept_out = [name for name in ("skipped", "allowed", "excluded") if getattr(self, name)]
        if self.ok and not (kept_out or self.dry_run):
            return "<All keys matched successfully>"
        others = {name: len(getattr(self, name)) for name in ("mismatched", "errors", *kept_out) if getattr(self, name)}
        done = "would be loaded (dry run)" if self.dry_run else "loaded"
        shown = f", {len(self.loaded)} {done}" if kept_out or self.dry_run else ""
        shown += "".join(f", {count} {name}" for name, count in others.items())
        return f"LoadReport(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys}{shown})"

    def __str__(self) -> str:
        from ._report_text import report_text

        return report_text(self)

    def _repr_html_(self) -> str:
        from ._report_text import report_html

        return report_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        _ = self.suggestions  # computed now, from the attempt, which is not pickled
        return _restored, (self[0], self[1], {**vars(self), "attempt": None})


_PAIR = ("missing_keys", "unexpected_keys")


def _restored(missing: list[str], unexpected: list[str], facts: dict[str, Any]) -> LoadReport:
    """Restore a report from its pickle."""
    report = LoadReport(missing, unexpected)
    vars(report).update({key: value for key, value in facts.items() if key not in _PAIR})
    return report
