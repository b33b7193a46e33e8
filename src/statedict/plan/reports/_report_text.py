"""Print a LoadReport: counts, then the problems, folded over layers, then suggestions; and the text of LoadError.

It fits on a screen for any number of problems: names are folded over layers, and each section shows only its first lines.
The text of LoadError begins as PyTorch's, for code that matches on it; the report follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from statedict.state import LINE, Section, as_html, as_text, fold, folded, listed

from ...errors import printable
from ..names._near_misses import NearMisses
from ..names._parts import parts_of, takes_whole
from ..tensors._step import Mismatch
from ._report import LoadReport
from ._suggest import LONGEST, in_common

if TYPE_CHECKING:
    from ._report import LoadReport

# Lines of each section, for problems and for the others: some 40 lines in total.
_PROBLEMS = 7
_OTHERS = 2


def report_text(report: LoadReport, *, refused: bool = False) -> str:
    """Return the report as text; `refused`: as that of a load that changed nothing."""
    if report.ok and not (_details(report) or report.notes or report.other_roots or report.dry_run):
        return "<All keys matched successfully>"
    return as_text(_counts(report, refused), _sections(report, refused))


def report_html(report: LoadReport) -> str:
    """Return the report as an HTML fragment, for notebooks."""
    return as_html(_counts(report, refused=False), _sections(report, refused=False))


def _counts(report: LoadReport, refused: bool) -> str:
    """Return the first line: the number of tensors loaded, the problems, and other details."""
    others = len(_other_errors(report))
    problems = {
        "missing": len(report.missing_keys),
        "unexpected": len(report.unexpected_keys),
        "mismatched": len(report.mismatched),
        "other error" if others == 1 else "other errors": others,
    }
    wrong = ", ".join(f"{count:,} {word}" for word, count in problems.items() if count)
    details = ", ".join(f"{count:,} {word}" for word, count in _details(report).items())
    tensors = f"{len(report.loaded):,} tensor" + "s" * (len(report.loaded) != 1)
    loaded = f"Dry run: would load {tensors}" if report.dry_run else f"Loaded {tensors}"
    first = f"Nothing was changed: {wrong}; {tensors} would fit" if refused else loaded
    first += f"; {wrong}" if wrong and not refused else ""
    first += f" ({details})" if details else ""
    roots = ", ".join(map(repr, report.other_roots))
    return f"{first}; used root {report.root!r}, the source also has {roots}" if roots else first


def _details(report: LoadReport) -> dict[str, int]:
    """Return the counts that are not problems."""
    lossy = len({one.name for one in report.cast if one.kind != "widening"})
    words = ("adapted", "renamed", "tied", "skipped", "excluded", "allowed")
    counts = {word: len(getattr(report, word)) for word in words}
    counts["renamed"] = len(set(report.renamed.values()).intersection(report.loaded))
    counts |= {"cast": len({one.name for one in report.cast}) - lossy, "cast with loss of precision": lossy}
    return {word: count for word, count in counts.items() if count}


def _sections(report: LoadReport, refused: bool) -> list[Section]:
    """Return the sections, problems first; `refused`: without the other errors, which the first lines of the error list."""
    return [
        _missing(report),
        folded(
            "unexpected", report.unexpected_keys, lambda names: _shape(report, names[0]), report.shapes.get, _PROBLEMS
        ),
        _misfits("mismatched", report.mismatched, _PROBLEMS),
        listed("other errors", [] if refused else _one_of_each(_other_errors(report)), _PROBLEMS, 4 * LINE),
        _misfits("skipped (the model's values are kept)", report.skipped, _OTHERS),
        _with_text("adapted", [(one.name, one.how) for one in report.adapted]),
        _with_text("cast", [(one.name, f"{one.found} → {one.wanted} ({one.kind})") for one in report.cast]),
        _with_text("tied", [(name, f"= {other}") for name, other in report.tied.items()]),
        listed("warnings", report.notes, 3, 4 * LINE),
        listed(
            "To fix this",
            [f"{printable(one.text)}:\n    {printable(one.call)}" for one in report.suggestions],
            2,
            LONGEST + 4,
            keep="\n",
        ),
    ]


def _missing(report: LoadReport) -> Section:
    """Return the missing names, with similar unexpected names."""
    shapes = report.shapes
    others = report.unexpected_keys if report.missing_keys else ()
    parts, slot_parts = parts_of(others), parts_of(report.missing_keys)
    texts = {group.names[0]: group.text for group in fold(others, shapes.get)}
    near = NearMisses(name for name in texts if name not in parts)

    def about(names: tuple[str, ...]) -> str:
        close = near.to(names[0], 3) if takes_whole(names[0], slot_parts) else []
        meant = [other for other in close if shapes.get(other) == shapes.get(names[0])]
        hint = f"  did you mean {texts[meant[0]]!r}?" if meant else ""
        return f"{_shape(report, names[0])}{hint}"

    return folded("missing", report.missing_keys, about, shapes.get, _PROBLEMS)


def _misfits(title: str, some: Sequence[Mismatch], limit: int) -> Section:
    known = {one.name: one for one in some}

    def about(names: tuple[str, ...]) -> str:
        one = known[names[0]]
        found = one.found if isinstance(one.found, str) else list(one.found)
        note = one.note or in_common(one.found, one.expected)
        return f"{found} in the source, {list(one.expected)} in the model" + (f": {note}" if note else "")

    return folded(title, known, about, lambda name: known[name][1:], limit)


def _with_text(title: str, some: Sequence[tuple[str, str]]) -> Section:
    """Return a section of names, each with its texts."""
    known: dict[str, str] = {}
    for name, text in some:
        known[name] = f"{known[name]}, {text}" if name in known else text
    return folded(title, known, lambda names: known[names[0]], known.get, _OTHERS)


def _shape(report: LoadReport, name: str) -> str:
    return str(list(report.shapes[name])) if name in report.shapes else ""


def _other_errors(report: LoadReport) -> list[str]:
    """Return the errors that are not listed as mismatched."""
    start, listed = "size mismatch for ", {one.name for one in report.mismatched}
    return [e for e in report.errors if not (e.startswith(start) and e[len(start) :].partition(":")[0] in listed)]


def _one_of_each(errors: Sequence[str]) -> list[str]:
    """Return the first of the errors that are equal except for the name in quotes, each with the names of the others.

    >>> _one_of_each([f'"layers.{n}.weight": casting would lose values' for n in range(12)])
    ['"layers.0.weight": casting would lose values (the same for 11 more: layers.{1…11}.weight)']
    """
    alike: dict[tuple[str, str], dict[str, str]] = {}
    for error in errors:
        before, _, rest = error.partition('"')
        name, _, after = rest.partition('"')
        alike.setdefault((before, after), {}).setdefault(name, error)
    return [next(iter(known.values())) + _same(list(known)[1:]) for known in alike.values()]


def _same(names: Sequence[str]) -> str:
    """Return a text that names the other tensors to which an error applies."""
    groups = [group.text for group in fold(names)]
    cut = ", …" if len(groups) > _OTHERS else ""
    return f" (the same for {len(names):,} more: {', '.join(groups[:_OTHERS])}{cut})" if names else ""


# PyTorch lists every key on one line; here the number is limited. The report has all of them.
_MOST = 50


def error_text(class_name: str, report: LoadReport) -> str:
    """Return the error text for a load into a module of class `class_name`.

    It begins with the same words and in the same order as PyTorch's: missing names, unexpected names, everything else.

    >>> error_text("Net", LoadReport(["a"], ["b"])).splitlines()[:3]  # doctest: +NORMALIZE_WHITESPACE
    ['Error(s) in loading state_dict for Net:', '\\tMissing key(s) in state_dict: "a". ',
     '\\tUnexpected key(s) in state_dict: "b". ']
    """
    problems = [_keys("Missing", report.missing_keys), _keys("Unexpected", report.unexpected_keys)]
    problems += _one_of_each(report.errors) or [_mismatch(one) for one in report.mismatched]
    shown = [printable(problem) for problem in problems if problem]
    if len(shown) > _MOST:
        shown[_MOST:] = [f"… and {len(shown) - _MOST:,} more"]
    refused = report_text(report, refused=True)
    return f"Error(s) in loading state_dict for {class_name}:\n\t" + "\n\t".join(shown) + f"\n\n{refused}"


def _keys(word: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = ", ".join(f'"{name}"' for name in names[:_MOST])
    more = f", … and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return f"{word} key(s) in state_dict: {listed}{more}. "


def _mismatch(one: Mismatch) -> str:
    if isinstance(one.found, str):
        return (
            f'While copying the parameter named "{one.name}", expected torch.Tensor or Tensor-like object from checkpoint '
            f"but received <class '{one.found}'>"
        )
    shapes = [f"torch.Size({list(shape)})" for shape in (one.found, one.expected)]
    return (
        f"size mismatch for {one.name}: copying a param with shape {shapes[0]} from checkpoint, "
        f"the shape in current model is {shapes[1]}."
    )
