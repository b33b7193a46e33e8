"""The torch host: modules, optimizers and tensors over this library's engine, under PyTorch's public signatures."""

from ._host import HOST as HOST
from ._library import TORCH as TORCH
from ._modules import module_load_state_dict as module_load_state_dict
from ._modules import module_state_dict as module_state_dict
from ._placement import place as place
from ._values import revived as revived
