"""Linear maps of vectors."""

from __future__ import annotations

from typing import Any

from .._arrays import Array, unwrap


def linear(input: Any, weight: Any, bias: Any = None) -> Array:
    """`input @ weightᵀ + bias`.

    Args:
        input: (…, inputs).
        weight: (outputs, inputs), or (inputs,).
        bias: (outputs,) or ().

    Returns:
        (…, outputs), or (…) for a weight of one dimension. Raises RuntimeError if the sizes do not match.

    >>> linear(np.ones((2, 3)), np.ones((4, 3)), np.ones(4)).tolist()
    [[4.0, 4.0, 4.0, 4.0], [4.0, 4.0, 4.0, 4.0]]
    """
    xp, input, weight, bias = unwrap(input, weight, bias)
    if not input.ndim or input.shape[-1] != weight.shape[-1]:
        columns = 1 if weight.ndim == 1 else weight.shape[0]
        rows = input.shape[0] if input.ndim == 2 else "x".join(map(str, input.shape[:-1])) or 1
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{input.shape[-1] if input.ndim else 1} "
            f"and {weight.shape[-1]}x{columns})"
        )
    if weight.ndim == 1:
        output = input @ weight
    elif input.ndim > 2:
        # One large matrix product; a stack of matrices would be a loop of small products.
        flat = xp.reshape(input, (-1, input.shape[-1]))
        output = xp.reshape(flat @ weight.T, (*input.shape[:-1], weight.shape[0]))
    else:
        output = input @ weight.T
    if bias is not None:
        output += bias
    return output


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Array:
    """`input1ᵀ · weight[o] · input2 + bias[o]` for each output o.

    Args:
        input1, input2: (…, inputs1) and (…, inputs2), with equal leading dimensions.
        weight: (outputs, inputs1, inputs2).
        bias: (outputs,).

    Returns:
        (…, outputs).

    >>> bilinear(np.ones((2, 3)), np.ones((2, 4)), np.ones((5, 3, 4))).tolist()
    [[12.0, 12.0, 12.0, 12.0, 12.0], [12.0, 12.0, 12.0, 12.0, 12.0]]
    """
    xp, input1, input2, weight, bias = unwrap(input1, input2, weight, bias)
    if input1.shape[:-1] != input2.shape[:-1]:
        raise RuntimeError(
            f"bilinear(): input batch dimensions do not match: got {list(input1.shape)} and {list(input2.shape)}"
        )
    first = xp.reshape(input1, (-1, input1.shape[-1]))
    second = xp.reshape(input2, (-1, input2.shape[-1]))
    # (outputs, batch, inputs2), and the sum over inputs2 by one product per batch element.
    half = first @ weight
    output = xp.reshape(xp.sum(half * second[None, ...], axis=-1).T, (*input1.shape[:-1], weight.shape[0]))
    return output if bias is None else output + bias
