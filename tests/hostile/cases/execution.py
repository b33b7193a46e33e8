"""Files that run code when PyTorch, or pickle, opens them: here they must not, and `load` must refuse them."""

from __future__ import annotations

import tarfile

from ..build import pickles as p
from ..build.streams import KEYS, legacy, link, tar
from ..build.torch_zips import W, member, torch_zip
from ..build.zips import Member
from ._case import Case

COMMAND = p.text(p.COMMAND)
SYSTEM = p.name("posix", "system")
EVIL = p.state(w=p.tensor(), x=p.shell())
IMPORTED_OS = p.call(p.name("builtins", "__import__"), p.text("os"))
NET = p.name("net_that_is_gone", "Net") + b")\x81"


def with_value(*parts: bytes, protocol: int = 2) -> bytes:
    """A clean state dict, and beside its tensor a value that the parts push."""
    return torch_zip(p.pickled(p.dict_((p.text("w"), p.tensor()), (p.text("x"), b"".join(parts))), protocol=protocol))


def called(module: str, attribute: str, *args: bytes) -> bytes:
    return with_value(p.call(p.name(module, attribute), *(args or (COMMAND,))))


def from_memo() -> bytes:
    names = p.text("posix"), p.put(0), p.POP, p.text("system"), p.put(1), p.POP, p.get(0), p.get(1)
    return with_value(*names, b"\x93", p.tuple_(COMMAND), b"R", protocol=4)


def method_caller() -> bytes:
    caller = p.call(p.name("operator", "methodcaller"), p.text("system"), COMMAND)
    return with_value(caller, p.tuple_(p.call(p.name("importlib", "import_module"), p.text("os"))), b"R")


def popped() -> bytes:
    return torch_zip(p.pickled(p.shell(), p.POP, p.dict_((p.text("w"), p.tensor()))))


def in_persistent_id() -> bytes:
    return torch_zip(p.state(w=p.tensor(p.storage(p.shell()))))


def set_state() -> bytes:
    made = p.call(p.name("argparse", "Namespace"))
    armed = p.build(made, p.dict_((p.text("__setstate__"), SYSTEM)))
    return with_value(p.build(armed, COMMAND))


def module_pickle() -> bytes:
    parameters = p.dict_((p.text("w"), p.tensor()))
    empty = ((p.text(name), p.dict_()) for name in ("_buffers", "_modules"))
    return torch_zip(p.pickled(p.build(NET, p.dict_((p.text("_parameters"), parameters), *empty))))


def getattr_chain() -> bytes:
    found = p.call(p.name("builtins", "getattr"), IMPORTED_OS, p.text("system"))
    return with_value(found, p.tuple_(COMMAND), b"R")


def other_folder() -> bytes:
    return torch_zip(None, folder="a", first=[Member(b"a/data.pkl", W)], more=[Member(b"b/data.pkl", EVIL)])


def torchscript() -> bytes:
    return torch_zip(EVIL, more=[member("constants.pkl", p.pickled(b")")), member("code/x.py", b"import os\n")])


def two_ends() -> bytes:
    clean = torch_zip()
    return torch_zip(EVIL, comment=len(clean)) + clean


def renamed(name: bytes, **lies: object) -> bytes:
    return torch_zip(None, more=[Member(name, EVIL, **lies)])


def flagged(where: str) -> bytes:
    return torch_zip(EVIL, lies={"data.pkl": {where: {"flags": 0x0801}}})


def tar_link(kind: bytes) -> bytes:
    return tar(storages=link("storages", "/etc/hostname", kind))


def _unsafe(name: str, what: str, build: object) -> Case:
    return Case(name, "unsafe", what, build)


CASES = [
    _unsafe("rce_global_reduce", "posix.system", lambda: with_value(p.shell())),
    _unsafe("rce_os_system", "os.system", lambda: called("os", "system")),
    _unsafe("rce_stack_global", "the name from two strings",
            lambda: with_value(p.stack_name("posix", "system"), p.tuple_(COMMAND), b"R", protocol=4)),
    _unsafe("rce_stack_global_memo", "the name from the memo", from_memo),
    _unsafe("rce_inst", "INST", lambda: with_value(b"(", COMMAND, b"iposix\nsystem\n")),
    _unsafe("rce_obj", "OBJ", lambda: with_value(b"(", SYSTEM, COMMAND, b"o")),
    _unsafe("rce_newobj_ex", "NEWOBJ_EX",
            lambda: with_value(p.name("subprocess", "Popen"), p.tuple_(p.list_(p.text("touch"), p.text(p.TRACE))),
                               p.dict_(), b"\x92", protocol=4)),
    _unsafe("rce_dotted_name", "a dotted name walks attributes",
            lambda: with_value(p.stack_name("torch.serialization", "os.system"), p.tuple_(COMMAND), b"R", protocol=4)),
    _unsafe("rce_py2_name", "a Python 2 name", lambda: called("commands", "getoutput")),
    _unsafe("rce_resolve_name", "pkgutil.resolve_name", lambda: called("pkgutil", "resolve_name", p.text("os:system"))),
    _unsafe("rce_methodcaller", "operator.methodcaller and importlib", method_caller),
    _unsafe("rce_torch_gadget", "a function of torch's that runs a shell",
            lambda: called("torch.utils.collect_env", "run")),
    _unsafe("rce_torch_hub", "another callable of torch's",
            lambda: called("torch.hub", "load_state_dict_from_url", p.text("http://localhost/x"))),
    _unsafe("rce_numpy_gadget", "numpy's runstring", lambda: called("numpy.testing._private.utils", "runstring")),
    _unsafe("rce_popped", "the call's result is popped", popped),
    _unsafe("rce_in_pid", "inside a persistent id", in_persistent_id),
    _unsafe("rce_in_dict_key", "as a key", lambda: torch_zip(p.pickled(p.dict_((p.shell(), p.tensor()))))),
    _unsafe("rce_build_setstate", "BUILD installs __setstate__, the next calls it", set_state),
    _unsafe("rce_broken_tail", "the stream is broken after the call", lambda: torch_zip(p.pickled(p.shell(), b"\xff"))),
    _unsafe("rce_truncated_tail", "no STOP", lambda: torch_zip(p.pickled(p.shell(), stop=b""))),
    _unsafe("rce_crlf_names", "CR in names",
            lambda: with_value(b"cposix\r\nsystem\r\n", p.tuple_(COMMAND), b"R")),
    _unsafe("rce_ext1", "EXT1", lambda: with_value(b"\x82\x01", p.tuple_(COMMAND), b"R")),
    _unsafe("rce_ext4", "EXT4", lambda: with_value(b"\x84\x01\0\0\0", p.tuple_(COMMAND), b"R")),
    Case("rce_module_pickle", "either", "a module whose class is gone", module_pickle),
    _unsafe("rce_getattr_chain", "getattr of __import__", getattr_chain),
    _unsafe("rce_legacy_main", "4th pickle of a legacy file", lambda: legacy(EVIL)),
    _unsafe("rce_legacy_magic", "1st pickle", lambda: legacy(magic=p.pickled(p.shell()))),
    _unsafe("rce_legacy_sysinfo", "3rd pickle", lambda: legacy(system=p.pickled(p.shell()))),
    _unsafe("rce_legacy_keys", "5th pickle", lambda: legacy(keys=p.pickled(p.shell(), p.POP, KEYS[2:-1]))),
    _unsafe("rce_raw_pickle_bin", "a bare pickle", lambda: p.state(w=p.shell())),
    _unsafe("rce_dup_pkl_evil_last", "two data.pkl", lambda: torch_zip(more=[member("data.pkl", EVIL)])),
    _unsafe("rce_dup_pkl_evil_first", "the other order", lambda: torch_zip(EVIL, more=[member("data.pkl", W)])),
    _unsafe("rce_case_pkl", "DATA.PKL", lambda: renamed(b"archive/DATA.PKL")),
    _unsafe("rce_case_pkl_both", "data.pkl and DATA.PKL", lambda: torch_zip(more=[member("DATA.PKL", EVIL)])),
    _unsafe("rce_other_dir", "two folders", other_folder),
    _unsafe("rce_bad_crc", "wrong CRC on data.pkl",
            lambda: torch_zip(EVIL, lies={"data.pkl": {"both": {"crc": 0x1234}}})),
    _unsafe("rce_flag_encrypted_local", "encrypted, says the local header", lambda: flagged("local")),
    _unsafe("rce_flag_encrypted_central", "encrypted, says the central one", lambda: flagged("central")),
    _unsafe("rce_local_name_differs", "the local header has another name",
            lambda: torch_zip(EVIL, lies={"data.pkl": {"local": {"name": b"archive/safe.txt"}}})),
    _unsafe("rce_nul_name", "NUL in the name", lambda: renamed(b"archive/data.pkl\0.txt")),
    _unsafe("rce_backslash_name", "a backslash", lambda: renamed(b"archive\\data.pkl")),
    _unsafe("rce_torchscript_dispatch", "constants.pkl is there", torchscript),
    _unsafe("rce_polyglot_pickle_then_zip", "a pickle, then a clean zip",
            lambda: torch_zip(before=p.pickled(p.shell()))),
    _unsafe("rce_polyglot_zip_in_comment", "a clean zip in the comment", two_ends),
    _unsafe("rce_legacy_tar", "the tar's storages pickle", lambda: tar(storages=p.pickled(p.shell()))),
    _unsafe("tar_symlink_storages", "a symlink", lambda: tar_link(tarfile.SYMTYPE)),
    _unsafe("tar_hardlink_abs", "a hard link", lambda: tar_link(tarfile.LNKTYPE)),
]  # fmt: skip
