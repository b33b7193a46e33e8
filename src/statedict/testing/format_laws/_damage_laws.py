"""Laws on damaged files: an error that names the file, or the right values; never another exception, never other memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from statedict.errors import BoundsError

from .._law import law
from .._samples import same, shown
from ._attempt import ReadAttempt, names_file, peak_of, traced
from ._format_under_test import SLACK, FormatUnderTest, located, spread_evenly
from ._recording_file import OutsideFileError

# Values that make most numbers larger: of binary ones, and of decimal digits.
LARGER = (0xFF, 0x7F, ord("9"))
# Padding that a file may end with.
PADDING = b"\0 \n"


class DamageLaws(FormatUnderTest):
    """Laws of a format's suite on files that were truncated, extended or changed."""

    @law
    def test_truncated_files_are_refused(self) -> Iterator[str]:
        """A file that ends early, at whatever byte, raises a FormatError that names it when it is opened."""
        whole = self.files_of(self.small())
        for name, done, files in self.prefixes(whole):
            found = self.attempt(files)
            if found.error is not None and not names_file(found.error, [name]):
                yield f"{done} raises {shown(found.error)}"
            elif found.error is None and (
                self.wrong(found, [], None) or whole[name][len(files[name]) :].strip(PADDING)
            ):
                yield f"{done} is opened"

    @law
    def test_trailing_bytes_are_refused_or_noted(self) -> Iterator[str]:
        """Bytes after the end of a file are refused or noted; the tensors before them are the same."""
        files = self.files_of(self.small())
        notes = self.attempt(files).notes
        for name, data in files.items():
            for more in (b"more", data):
                found = self.attempt({**files, name: data + more})
                wrong = self.wrong(found, {*files, *self.places(files)}, None, lost=found.noted(name))
                if wrong:
                    yield f"{name} and {len(more):,} bytes after it: {wrong}"
                elif not any(found.errors) and len(found.notes) <= len(notes):
                    yield f"{name} and {len(more):,} bytes after it: it is opened without a note"

    @law
    def test_changed_bits_are_noticed(self) -> Iterator[str]:
        """A changed bit raises a FormatError that names the file, or changes nothing but (without checksums) its tensor."""
        files = self.files_of(self.small())
        elements = located(files, self.small())
        for name, data in files.items():
            for at, bit in self._bits(name, data, elements, self.copies // len(files)):
                tensor = elements.get((name, at))
                found = self.attempt({**files, name: changed(data, at, data[at] ^ 1 << bit)})
                anything = not self.checksums and tensor is None
                differs, lost = None if self.checksums else tensor, found.noted(name)
                wrong = self.wrong(found, self.places(files), differs, anything=anything, lost=lost)
                if wrong:
                    yield f"byte {at:,} of {name}, bit {bit} changed: {wrong}"

    def _bits(
        self, name: str, data: bytes, elements: Mapping[tuple[str, int], str], most: int
    ) -> list[tuple[int, int]]:
        """Return every bit of the description and one bit of every fourth byte of the tensors, as (byte, bit)."""
        described = [at for at in range(len(data)) if (name, at) not in elements]
        bits = [(at, (at + bit) % 8) for bit in range(8) for at in described]
        return spread_evenly(bits, most) + [(at, at % 8) for at in range(0, len(data), 4) if (name, at) in elements]

    @law
    def test_tensors_lie_within_their_file(self) -> Iterator[str]:
        """A file whose numbers are too large is refused when it is opened: no tensor is outside its storage or the file.

        Nor is memory allocated for what a number claims.
        """
        files = self.files_of(self.small())
        elements = located(files, self.small())
        places = [(name, at) for name, data in files.items() for at in range(len(data)) if (name, at) not in elements]
        copies = [(name, at, byte) for byte in LARGER for name, at in places]
        with traced():
            for name, at, byte in spread_evenly(copies, self.copies // 3):
                damaged = {**files, name: changed(files[name], at, byte)}
                found, peak = peak_of(partial(self.attempt, damaged))
                done = f"byte {at:,} of {name} set to {byte:#x}"
                if peak > SLACK:
                    yield f"{done}: {peak:,} bytes are allocated"
                yield from (f"{done}: {tensor!r} is not within its storage" for tensor in found.beyond)
                for tensor, value in found.found.items():
                    if isinstance(value, (BoundsError, OutsideFileError)):
                        yield f"{done}: it is opened, but reading {tensor!r} raises {shown(value)}"

    def wrong(
        self,
        found: ReadAttempt,
        names: Iterable[str],
        differs: str | None,
        *,
        anything: bool = False,
        lost: bool = False,
    ) -> str | None:
        """Return what is wrong with the result of reading a damaged copy of the small state.

        Errors must name one of `names`. The tensor `differs` may differ; with `anything`, all may; with `lost`, tensors may
        be left out. A name that reading raises an error for may stand for them.
        """
        names = [*names]
        for error in found.errors:
            if not names_file(error, names):
                return f"it raises {shown(error)}"
        if found.error is not None or anything:
            return None
        state = self.expected(self.small())
        wanted = {name: array for name, array in state.items() if name in found.found or not lost}
        read = {name for name, value in found.found.items() if name in state or not (lost and is_error(value))}
        if read != wanted.keys():
            return f"it is read with the names {list(found.found)}"
        for name, array in wanted.items():
            value = found.found[name]
            if name != differs and not is_error(value) and not same(value, array):
                return f"{name!r} has other elements"
        return None


def is_error(value: object) -> bool:
    return isinstance(value, BaseException)


def changed(data: bytes, at: int, byte: int) -> bytes:
    """Return a copy of `data` with another byte at `at`."""
    return data[:at] + bytes([byte]) + data[at + 1 :]
