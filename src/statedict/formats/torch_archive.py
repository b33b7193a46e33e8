"""The parts of torch.save's formats (archive, pickles, tar) for code that implements torch.save's own interface.

Other code uses `formats.open` and `formats.write`. This module is separate from the package's `__init__` because it
imports NumPy, which `import statedict` must not do.
"""

from ._limits import LIMITS as LIMITS
from ._pickle import Placement as Placement
from ._pickle import Size as Size
from ._pickle import StorageId as StorageId
from ._pickle import TorchConstant as TorchConstant
from ._pickle import TypedStorage as TypedStorage
from ._pickle import emit as emit
from ._pickle import parse as parse
from ._pickle._recipe import WRAPPER as WRAPPER
from ._pickle._recipe import RecipeError as RecipeError
from ._pickle._recipe import take_apart as take_apart
from ._pickle._recipe import unknown as unknown
from ._pickle._recipe_values import rebuilding as rebuilding
from ._pickle.reading._calls import is_built as is_built
from ._pickle.writing._objects import reduced as reduced
from .safetensors._torchao import TORCHAO as TORCHAO
from .safetensors._torchao import recipe_state as recipe_state
from .torch_files._read import top_folder as top_folder
from .torch_files._storages import ArchiveStorages as ArchiveStorages
from .torch_files._tar import read_tar as read_tar
from .torch_files._tar import read_tar_tensors as read_tar_tensors
from .torch_files._write import archive_parts as archive_parts
from .torch_files._write import torch_parts as torch_parts
from .zip._archive import Archive as Archive
from .zip._archive import member_bytes as member_bytes
from .zip._archive import open_zip as open_zip
from .zip._archive import read_member as read_member
from .zip._members import Member as Member
from .zip._write import Record as Record
from .zip._write import TensorRun as TensorRun
