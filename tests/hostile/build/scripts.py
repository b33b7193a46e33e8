"""TorchScript archives: data.pkl of objects whose classes are in the archive's code/."""

from __future__ import annotations

from . import pickles as p
from .torch_zips import member, torch_zip

CODE = b"""class Net(Module):
  __parameters__ = ["w", ]
  __buffers__ = ["b", ]
  training : bool
  w : Tensor
  b : Tensor
  x : Tensor
  child : __torch__.Child
"""
CHILD = b"""class Child(Module):
  __parameters__ = ["w", ]
  __buffers__ = []
  w : Tensor
"""


def instance(name: str, **fields: bytes) -> bytes:
    return p.build(p.name("__torch__", name) + b")\x81", p.dict_(*((p.text(k), v) for k, v in fields.items())))


def script(pickle: bytes | None = None, code: bytes = CODE + CHILD, **layout: object) -> bytes:
    """A module with a parameter, a buffer, a plain tensor and a child; its code compressed, as torch.jit.save does."""
    tensor = p.tensor()
    net = instance("Net", training=p.TRUE, w=tensor, b=tensor, x=tensor, child=instance("Child", w=tensor))
    more = [
        member("code/__torch__.py", code, method=8),
        member("extra/empty.txt", b""),
        member("constants.pkl", p.pickled(b")")),
    ]
    return torch_zip(p.pickled(net) if pickle is None else pickle, more=more, **layout)
