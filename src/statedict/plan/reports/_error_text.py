"""The text of the error that refuses a load: PyTorch's, so that code which matches on it works, and then a better one."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import printable
from ..tensors._step import Mismatch
from ._report import LoadReport

# PyTorch lists every key on one line. So many are enough for code that looks at them; the report has all.
_MOST = 50


def error_text(class_name: str, report: LoadReport) -> str:
    """What a load into a module of class `class_name` is refused with. It begins as PyTorch's text does, in its words and
    its order: missing names, unexpected names, everything else.

    >>> error_text("Net", LoadReport(["a"], ["b"])).splitlines()[:3]  # doctest: +NORMALIZE_WHITESPACE
    ['Error(s) in loading state_dict for Net:', '\\tMissing key(s) in state_dict: "a". ',
     '\\tUnexpected key(s) in state_dict: "b". ']
    """
    problems = [_keys("Missing", report.missing_keys), _keys("Unexpected", report.unexpected_keys)]
    problems += report.errors or [_mismatch(one) for one in report.mismatched]
    told = [printable(problem) for problem in problems if problem]
    if len(told) > _MOST:
        told[_MOST:] = [f"… and {len(told) - _MOST:,} more"]
    counts, _, rest = str(report).partition("\n")
    refused = f"{counts} (nothing was changed)\n{rest}".rstrip()
    return f"Error(s) in loading state_dict for {class_name}:\n\t" + "\n\t".join(told) + f"\n\n{refused}"


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
