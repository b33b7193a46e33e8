"""The globals of pickles: the names of torch's dtypes and types, for both directions, and the risk of every import.

PyTorch froze the list of `<type>Storage` classes. A dtype in it is saved as `torch.FloatStorage` and rebuilt by
`_rebuild_tensor_v2`; a newer one is saved as bytes (`torch.storage.UntypedStorage`) and rebuilt by
`_rebuild_tensor_v3`, which takes the dtype.

Imports are classified as safe, unknown or dangerous (running code). Nothing is imported, whatever its risk. The
classification is for users: `inspect` shows it, and `load` refuses a file with a dangerous import, because its author
intended other readers to run something. For the standard library, PyTorch and NumPy there are lists of what is ordinary,
not of what is dangerous: such lists are never complete, and each of these packages has many indirect ways to run code.
"""

from __future__ import annotations

import builtins
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable

from statedict.state import DTYPES, DType

from ._values import Kind, Risk, TorchConstant

_STORAGES = {
    "float64": "Double",
    "float32": "Float",
    "float16": "Half",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
    "bfloat16": "BFloat16",
    "complex128": "ComplexDouble",
    "complex64": "ComplexFloat",
    "quint8": "QUInt8",
    "qint8": "QInt8",
    "qint32": "QInt32",
    "quint4x2": "QUInt4x2",
    "quint2x4": "QUInt2x4",
}
_ALIASES = {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "chalf": "complex32",
    "cfloat": "complex64",
    "cdouble": "complex128",
}
_UNTYPED = ("UntypedStorage", "_UntypedStorage")

STORAGE_NAME: dict[DType, str] = {DTYPES[name]: f"{prefix}Storage" for name, prefix in _STORAGES.items()}
"""The storage class in `torch` of each DType; other dtypes are saved untyped."""

STORAGE_DTYPE: dict[str, DType | None] = {
    **{name: dtype for dtype, name in STORAGE_NAME.items()},
    **dict.fromkeys(_UNTYPED, None),
}
"""The inverse; None for untyped storages."""

PACKED = {"quint4x2": 2, "quint2x4": 4}
"""Elements per byte of the quantised dtypes with packed rows."""

TENSOR_NAMES = {f"{prefix}Tensor" for prefix in _STORAGES.values()} | {"Tensor"}


def storage_dtype(module: str, name: str) -> DType | None:
    """Return the element type of a storage class, None for the untyped one; raise KeyError for anything else."""
    if module.partition(".")[0] != "torch":
        raise KeyError(name)
    return STORAGE_DTYPE[name]


def is_tensor_type(module: str, name: str) -> bool:
    """Return whether the global is a class of plain tensors: `torch.Tensor`, `torch.cuda.FloatTensor` …"""
    return name in TENSOR_NAMES and module in ("torch", "torch.cuda", "torch.tensor", "torch._tensor", "torch.sparse")


_CONSTANTS: dict[Kind, str] = {
    "layout": "strided sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc jagged",
    "memory_format": "contiguous_format preserve_format channels_last channels_last_3d",
    "qscheme": "per_tensor_affine per_channel_affine per_tensor_symmetric per_channel_symmetric "
    "per_channel_affine_float_qparams",
}
TORCH_CONSTANTS: dict[str, object] = {
    **DTYPES,
    **{alias: DTYPES[name] for alias, name in _ALIASES.items()},
    **{name: TorchConstant(kind, name) for kind, names in _CONSTANTS.items() for name in names.split()},
}
"""The inert value of each constant `torch.<name>`."""


# Names that Tensor computes or keeps in C: setting them is not an ordinary attribute assignment.
RESERVED = frozenset(
    name
    for line in (
        "T H mT mH data grad grad_fn requires_grad real imag names shape dtype device layout itemsize nbytes ndim name",
        "is_leaf output_nr retains_grad volatile grad_dtype _grad _grad_fn _base _cdata _version _backward_hooks",
        "_post_accumulate_grad_hooks _python_dispatch _has_symbolic_sizes_strides",
    )
    for name in line.split()
)


def is_attribute(name: object) -> bool:
    """Return whether a file may set an attribute of this name on a tensor."""
    return type(name) is str and name.isidentifier() and not name.startswith("__") and name not in RESERVED


# imports and their risk


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def canonical(module: str, name: str) -> tuple[str, str]:
    """Return the Python 3 name of a global: pickles of protocol 2 and older use Python 2's names."""
    return NAME_MAPPING.get((module, name)) or (IMPORT_MAPPING.get(module, module), name)


def risk_of(module: str, name: str) -> Risk:
    """Return the risk of a global that our constructors do not handle, by its Python 3 name.

    >>> risk_of("os", "system"), risk_of("torch.nn.modules.linear", "Linear"), risk_of("my_project.models", "Net")
    ('dangerous', 'unknown', 'unknown')
    """
    steps = name.split(".")
    if len(steps) > 1 and not all(map(_CLASS.match, steps)):
        return "dangerous"  # a dotted name can reach anything that a module has imported
    top, _, rest = module.partition(".")
    if steps[0] in _NEVER or top in _FOREIGN or _DUNDER.match(steps[0]):
        return "dangerous"
    judge = _JUDGES.get(top)
    if judge is not None:
        return "unknown" if judge(rest, steps[0]) else "dangerous"
    if top in _STANDARD:
        ordinary = _ORDINARY.get(module, "")
        return "unknown" if ordinary is None or steps[0] in ordinary.split() else "dangerous"
    return "unknown"


_DUNDER = re.compile(r"__\w+__\Z")
# A nested class: the legitimate use of a dotted name.
_CLASS = re.compile(r"_?[A-Z][A-Za-z0-9_]*\Z")
# Dangerous in any package: a module imported there, or a function that runs its argument.
_NEVER = _words(
    "os sys subprocess builtins importlib shutil socket ctypes pickle marshal runpy eval exec execfile open getattr "
    "setattr delattr globals locals vars input breakpoint system popen spawn run_code import_module read_pickle "
    "unsafe_load sympify parse_expr lambdify"
)
# Packages for starting programs, communicating, or deserialising code.
_FOREIGN = _words(
    "pip setuptools pkg_resources wheel IPython ipykernel jupyter_client jupyter_core notebook dill cloudpickle jsonpickle "
    "paramiko fabric invoke sh plumbum pexpect psutil requests httpx urllib3 aiohttp twisted zmq cffi numba yaml jinja2 "
    "mako commands popen2 dl posixfile mypy pytest _pytest nose hypothesis"
)
_STANDARD = sys.stdlib_module_names | _words(
    # Not in every version of Python: the result must not depend on the version.
    "asynchat asyncore distutils imp smtpd aifc audioop cgi cgitb chunk crypt imghdr mailcap msilib nis nntplib ossaudiodev "
    "pipes sndhdr spwd sunau telnetlib uu xdrlib lib2to3 tomllib nt posix _winreg winreg winsound msvcrt commands"
)

_EXCEPTIONS = {
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}
# Modules of the standard library, with the names in them that ordinary files use; None: all of them.
_ORDINARY: dict[str, str | None] = {
    "builtins": "object type int float str bool bytes bytearray complex dict list tuple set frozenset range slice "
    "property staticmethod classmethod super memoryview Ellipsis NotImplemented abs all any bin callable chr divmod hash "
    "hex id isinstance issubclass len max min oct ord pow repr round sum " + " ".join(sorted(_EXCEPTIONS)),
    "_codecs": "encode",
    "abc": "ABC ABCMeta",
    "argparse": "Namespace",
    "array": "array _array_reconstructor",
    "calendar": None,
    "cmath": None,
    "collections": "OrderedDict Counter defaultdict deque ChainMap UserDict UserList UserString",
    "collections.abc": None,
    "copyreg": "_reconstructor __newobj__ __newobj_ex__",
    "dataclasses": "Field _MISSING_TYPE _HAS_DEFAULT_FACTORY_CLASS InitVar",
    "datetime": None,
    "decimal": None,
    "_decimal": None,
    "_pydecimal": None,
    "enum": "Enum IntEnum Flag IntFlag StrEnum",
    "fractions": None,
    "functools": "partial partialmethod",
    "inspect": "_empty _void _ParameterKind Parameter Signature",
    "ipaddress": None,
    "itertools": "count cycle repeat chain product islice combinations permutations",
    "json.encoder": "JSONEncoder",
    "json.decoder": "JSONDecoder",
    "logging": "Logger getLogger RootLogger LogRecord",
    "math": None,
    "numbers": None,
    "operator": "add sub mul truediv floordiv mod neg pos matmul itemgetter and_ or_ xor eq ne lt le gt ge not_",
    "pathlib": None,
    "pathlib._local": None,
    "queue": "Queue LifoQueue PriorityQueue Empty Full",
    "random": "Random",
    "re": "Pattern RegexFlag _compile compile",
    "statistics": "NormalDist mean median",
    "string": "Template",
    "time": "struct_time time perf_counter monotonic",
    "types": "SimpleNamespace MappingProxyType GenericAlias NoneType EllipsisType NotImplementedType",
    "typing": "Any Union Optional Generic TypeVar Callable List Dict Tuple Set Sequence Mapping NamedTuple _GenericAlias",
    "urllib.parse": "ParseResult SplitResult ParseResultBytes SplitResultBytes",
    "uuid": "UUID SafeUUID",
    "weakref": "WeakKeyDictionary WeakValueDictionary WeakSet",
    "xml.etree.ElementTree": "Element ElementTree",
    "zoneinfo": "ZoneInfo",
}

_TORCH = re.compile(
    r"(nn|optim|ao|quantization|distributions|functional|_tensor|tensor|_utils|storage|amp|autograd|nested|sparse|special|fft|"
    r"linalg|masked|random|return_types|torch_version|cuda|xpu|mps|cpu|utils\.(hooks|data|_pytree|_ordered_set|_contextlib)|"
    r"_C\._nn|distributed\.(checkpoint|tensor|_tensor|_shard|fsdp|device_mesh|_mesh_layout|distributed_c10d|optim|algorithms|"
    r"remote_device))(\.|\Z)"
)
_TORCH_NEVER = _words(
    "load save hub jit ops classes package library fx onnx export serialization multiprocessing testing _dynamo _inductor "
    "_load_from_bytes load_url download_url_to_file"
)
_NUMPY = re.compile(
    r"(core|_core|random|ma|matrixlib|polynomial|fft|linalg|dtypes|rec|lib\._?polynomial[a-z_]*)(\.|\Z)"
)
_NUMPY_NEVER = _words(
    "load save savez savetxt loadtxt genfromtxt fromfile fromregex memmap DataSource testing distutils f2py ctypeslib lib "
    "core lookfor source info show_config test tofile runstring"
)


def _torch(rest: str, name: str) -> bool:
    if name in _TORCH_NEVER or {"instantiator", "rpc", "collect_env", "cpp_extension"} & set(rest.split(".")):
        return False
    # A jagged tensor contains a _DimRange: a plain record, in a module where nothing else is allowed.
    known = (rest == "_C" and bool(_CLASS.match(name))) or (rest, name) == ("_dynamo.decorators", "_DimRange")
    return not rest or bool(_TORCH.match(rest)) or known


def _numpy(rest: str, name: str) -> bool:
    return name not in _NUMPY_NEVER and (not rest or bool(_NUMPY.match(rest)))


_JUDGES: dict[str, Callable[[str, str], bool]] = {"torch": _torch, "numpy": _numpy}
