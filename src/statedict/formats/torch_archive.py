"""The second door of this room, for who keeps torch.save's own contract: its archive, its pickles, its tars, as parts.

`formats.open` and `formats.write` are for everybody else. This door is apart from the room's first because what is behind
it imports NumPy, which `import statedict` must not.
"""

from ._limits import LIMITS as LIMITS
from ._pickle import Placement as Placement
from ._pickle import Size as Size
from ._pickle import StorageId as StorageId
from ._pickle import TorchConstant as TorchConstant
from ._pickle import TypedStorage as TypedStorage
from ._pickle import emit as emit
from ._pickle import parse as parse
from .torch_files._read import top_folder as top_folder
from .torch_files._storages import ArchiveStorages as ArchiveStorages
from .torch_files._tar import read_tar as read_tar
from .torch_files._tar import read_tar_tensors as read_tar_tensors
from .torch_files._write import archive_parts as archive_parts
from .zip._archive import Archive as Archive
from .zip._archive import member_bytes as member_bytes
from .zip._archive import open_zip as open_zip
from .zip._archive import read_member as read_member
from .zip._headers import Member as Member
from .zip._write import Record as Record
from .zip._write import Run as Run
