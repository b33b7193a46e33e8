"""The error texts that are the same for every host. Those of PyTorch are in its words: programs match on them."""

from __future__ import annotations

from statedict.state import Cast


def not_a_tensor(key: str, value: object) -> str:
    """PyTorch's text for a value that is not a tensor."""
    return (
        f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from checkpoint but '
        f"received {type(value)}"
    )


def wrong_size(key: str, found: object, wanted: object) -> str:
    """PyTorch's text for a tensor of another shape."""
    return (
        f"size mismatch for {key}: copying a param with shape {found} from checkpoint, "
        f"the shape in current model is {wanted}."
    )


def lossy(cast: Cast) -> str:
    """The text for a cast that the rules refuse."""
    return (
        f'"{cast.name}": casting {cast.found} from the checkpoint to {cast.wanted} of the model would lose values '
        f'({cast.kind}). Convert one of them, or pass allow_casts="{cast.kind}" to accept this.'
    )


def differing_ties(one: str, other: str) -> str:
    """The text for two names of one parameter that have different values."""
    return (
        f'"{one}" and "{other}" are tied in the model but differ in the checkpoint. Exclude one of them, or untie them in '
        "the model."
    )
