"""The text of LoadError: first as PyTorch's, for code that matches on it, then a more detailed report."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import printable
from ..tensors._step import Mismatch
from ._report import LoadReport
from ._report_text import report_text

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
    problems += report.errors or [_mismatch(one) for one in report.mismatched]
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
