"""The second door of this room, for who keeps torch.save's own contract: its archive, its pickles, its tars, as parts.

`formats.open` and `formats.write` are for everybody else. This door is apart from the room's first because what is behind
it imports NumPy, which `import statedict` must not.
"""

from ._archive_storages import ArchiveStorages as ArchiveStorages
from ._limits import LIMITS as LIMITS
from ._pickle import Placement as Placement
from ._pickle import Size as Size
from ._pickle import StorageId as StorageId
from ._pickle import TorchConstant as TorchConstant
from ._pickle import TypedStorage as TypedStorage
from ._pickle import emit as emit
from ._pickle import parse as parse
from ._torch_tar import read_tar as read_tar
from ._torch_tar import read_tar_tensors as read_tar_tensors
from ._torch_write import archive_parts as archive_parts
from ._torch_zip import top_folder as top_folder
from ._zip import Archive as Archive
from ._zip import member_bytes as member_bytes
from ._zip import open_zip as open_zip
from ._zip import read_member as read_member
from ._zip_headers import Member as Member
from ._zip_write import Record as Record
from ._zip_write import Run as Run
