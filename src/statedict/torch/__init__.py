"""The torch host: modules, optimizers and tensors over this library's engine, under PyTorch's public signatures."""

from ._host import HOST as HOST
from ._install import install as install
from ._install import uninstall as uninstall
from ._library import TORCH as TORCH
from ._modules import module_load_state_dict as module_load_state_dict
from ._modules import module_state_dict as module_state_dict
from ._placement import place as place
from ._random import read_random as read_random
from ._random import write_random as write_random
from ._values import revived as revived
