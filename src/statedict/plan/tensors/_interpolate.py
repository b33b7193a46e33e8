"""Resize position embeddings to another image size or length, as timm and DeiT do.

The two shapes determine which dimensions are positions:

- Two dimensions differ: they are the grid, `[1, H, W, C]` or `[1, C, H, W]`.
- One differs, and both lengths are a square number after the same few prefix tokens (class token, distillation token): a
  square grid, whose prefix tokens are kept. `[1, 197, C] → [1, 577, C]` is 14×14 → 24×24 after one prefix token.
- One differs in any other way: a sequence of positions, interpolated linearly.

Grids are resized bicubically with antialiasing, timm's default (`torch.nn.functional.interpolate(mode="bicubic",
antialias=True, align_corners=False)`); sequences as with `mode="linear"`. Resampling is separable: one small matrix of
weights for each dimension.
"""

from __future__ import annotations

from math import floor, isqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import DType, Spec

from ._step import Adaptation, Policy

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Size = tuple[int, int]

# A class token, a distillation token, some registers. With a larger limit, other lengths would be mistaken for grids.
_MOST_PREFIX = 8
# pos_embed, position_embeddings.weight, rel_pos_h, GPT-2's wpe.weight: the names that "interpolate" for all applies to.
_POSITIONS = r"pos|wpe"


class Grid(NamedTuple):
    """Tokens along `axis`: `prefix` tokens that are kept, then a grid; `old` and `new` are its rows and columns."""

    axis: int
    prefix: int
    old: Size
    new: Size


def interpolate(
    mode: str | None = None, *, antialias: bool = True, prefix: int | None = None, grid: tuple[Size, Size] | None = None
) -> Policy:
    """Return the policy that resizes position embeddings: `mismatched={"pos_embed": interpolate(prefix=1)}`.

    Args:
        mode: `"bicubic"` or `"bilinear"` for a grid, `"linear"` for a sequence; None: chosen by the shapes.
        antialias: as in timm (True) or as in DeiT (False); for grids only.
        prefix: the number of tokens before the grid, which are kept; None: computed from the shapes.
        grid: the old and new rows and columns if the grid is not square: `((14, 10), (24, 18))`.
    """
    if mode not in (None, "bicubic", "bilinear", "linear"):
        raise ValueError(f"mode must be 'bicubic', 'bilinear' or 'linear', not {mode!r}")

    def decide(source: Spec, target: Spec) -> Adaptation | str:
        if not (source.dtype.is_floating or source.dtype.is_complex):
            return f"'interpolate' needs floating-point elements, not {source.dtype.name}"
        differ = [n for n, (a, b) in enumerate(zip(source.shape, target.shape)) if a != b]
        if len(source.shape) != len(target.shape) or not 1 <= len(differ) <= 2 or 0 in source.shape:
            return "'interpolate' needs shapes that differ in one dimension or two"
        spec = target.dense()._replace(dtype=source.dtype)
        if len(differ) == 2:
            return _plane(source, spec, (differ[0], differ[1]), mode or "bicubic", antialias)
        found = _grid(source.shape[differ[0]], target.shape[differ[0]], differ[0], prefix, grid)
        if found and mode != "linear":
            return _tokens(source, spec, found, mode or "bicubic", antialias)
        if mode in ("bicubic", "bilinear") or grid or prefix is not None:
            return f"{source.shape[differ[0]]} → {target.shape[differ[0]]} positions do not match the requested grids"
        return _line(source, spec, differ[0])

    return Policy(mode or "interpolate", decide, _POSITIONS)


def _grid(old: int, new: int, axis: int, prefix: int | None, grid: tuple[Size, Size] | None) -> Grid | None:
    """Find the grids in the two lengths; None if there are none."""
    if grid is not None:
        before = old - grid[0][0] * grid[0][1]
        fits = before == new - grid[1][0] * grid[1][1] and before in (
            range(before + 1) if prefix is None else (prefix,)
        )
        return Grid(axis, before, *grid) if fits and before >= 0 else None
    for before in range(_MOST_PREFIX + 1) if prefix is None else (prefix,):
        sides = [isqrt(max(length - before, 0)) for length in (old, new)]
        if sides[0] ** 2 == old - before and sides[1] ** 2 == new - before and min(sides) > 1:
            return Grid(axis, before, (sides[0],) * 2, (sides[1],) * 2)
    return None


def _tokens(source: Spec, spec: Spec, grid: Grid, mode: str, antialias: bool) -> Adaptation:
    """Resize the grid after its prefix tokens."""

    def resized(array: Array) -> Array:
        import numpy as np

        rows = np.moveaxis(array.astype(_wide(source.dtype)), grid.axis, 0)
        before, plane = rows[: grid.prefix], rows[grid.prefix :].reshape(*grid.old, *rows.shape[1:])
        for axis in (0, 1):
            plane = resample(plane, axis, weights(grid.old[axis], grid.new[axis], mode, antialias))
        after = plane.reshape(-1, *rows.shape[1:])
        return np.moveaxis(np.concatenate([before, after]), 0, grid.axis).astype(source.dtype.numpy)

    kept = f", {grid.prefix} prefix token{'s' * (grid.prefix > 1)} kept" if grid.prefix else ""
    return Adaptation(f"{mode} from {_times(grid.old)} to {_times(grid.new)}{kept}", spec, resized)


def _plane(source: Spec, spec: Spec, axes: Size, mode: str, antialias: bool) -> Adaptation | str:
    """Resize two dimensions."""
    if mode == "linear":
        return "'linear' needs shapes that differ in one dimension"
    old, new = ((shape[axes[0]], shape[axes[1]]) for shape in (source.shape, spec.shape))

    def resized(array: Array) -> Array:
        array = array.astype(_wide(source.dtype))
        for axis, before, after in zip(axes, old, new):
            array = resample(array, axis, weights(before, after, mode, antialias))
        return array.astype(source.dtype.numpy)

    return Adaptation(f"{mode} from {_times(old)} to {_times(new)}", spec, resized)


def _line(source: Spec, spec: Spec, axis: int) -> Adaptation:
    """Resize one dimension linearly, from neighbours: a matrix of weights would be too large for a long sequence."""
    old, new = source.shape[axis], spec.shape[axis]

    def resized(array: Array) -> Array:
        import numpy as np

        rows = np.moveaxis(array.astype(_wide(source.dtype)), axis, -1)
        place = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
        low = place.astype(int)
        part = place - low
        between: Array = rows[..., low] * (1 - part) + rows[..., np.minimum(low + 1, old - 1)] * part
        return np.moveaxis(between, -1, axis).astype(source.dtype.numpy)

    return Adaptation(f"linear from {old} to {new} positions", spec, resized)


def resample(array: Array, axis: int, matrix: Array) -> Array:
    """Replace `axis` (of length `matrix.shape[1]`) by its weighted sums."""
    import numpy as np

    return np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)


def weights(old: int, new: int, mode: str, antialias: bool) -> Array:
    """Return the `[new, old]` matrix that resizes one dimension; pixels are areas (PyTorch's `align_corners=False`)."""
    import numpy as np

    matrix = np.zeros((new, old))
    scale = old / new
    reach = 2 if mode == "bicubic" else 1
    if antialias:
        # As in Pillow, the filter is stretched over the pixels that are combined, and cut off at the border.
        stretch = max(scale, 1.0)
        for row in range(new):
            centre = scale * (row + 0.5)
            first = max(int(centre - reach * stretch + 0.5), 0)
            last = min(int(centre + reach * stretch + 0.5), old)
            taps = [_filter((n - centre + 0.5) / stretch, mode, -0.5) for n in range(first, last)]
            matrix[row, first:last] = np.array(taps) / sum(taps)
        return matrix
    for row in range(new):
        centre = scale * (row + 0.5) - 0.5
        centre = centre if mode == "bicubic" else max(centre, 0.0)
        for n in range(floor(centre) - reach + 1, floor(centre) + reach + 1):
            # Beyond the border, the pixel at the border is repeated.
            matrix[row, min(max(n, 0), old - 1)] += _filter(n - centre, mode, -0.75)
    return matrix


def _filter(x: float, mode: str, a: float) -> float:
    """Return Keys' cubic convolution kernel with parameter `a` (PyTorch: -0.75, antialiased -0.5), or a triangle."""
    x = abs(x)
    if mode != "bicubic":
        return max(1.0 - x, 0.0)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _wide(dtype: DType) -> Any:
    return "complex128" if dtype.is_complex else "float64"


def _times(size: Size) -> str:
    return f"{size[0]}×{size[1]}"
