"""The operating system, where systems differ: files, locks, signals and limits. No other package uses these calls.

What a system can do is found out from what Python's modules have there, not from its name, so that tests load this package
over simulated systems (`tests/systems`). `System` has the calls of a save, one method each, so that a test can substitute a
System that fails, writes partially or dies at the n-th call, for each n.

On Windows, an open file cannot be renamed, replaced or deleted (MUST_CLOSE), directories cannot be flushed, and os.kill ends
a process without calling its handlers. On macOS, fsync leaves the data in the drive's cache, and F_FULLFSYNC does not.
"""

from ._calls import SYSTEM, UNSUPPORTED, System, exchange, flush_directory, flush_file, open_to_read, rename
from ._descriptors import (
    CREATE,
    DIRECTORY,
    HOLD,
    LOCKED,
    MOST_BUFFERS,
    READ,
    READ_OWN,
    WRITE,
    names_file,
    path_in_url,
    pread,
    preadv,
    pwritev,
)
from ._lease import lease
from ._modules import MUST_CLOSE
from ._process import (
    DIED,
    IGNORED,
    after_fork,
    call_sigterm_handler,
    die,
    handle_sigterm,
    interrupted_after,
    open_files_limit,
    processors,
    send_sigterm,
    sigterm_handler,
)

__all__ = [
    "CREATE", "DIED", "DIRECTORY", "HOLD", "IGNORED", "LOCKED", "MOST_BUFFERS", "MUST_CLOSE", "READ", "READ_OWN",
    "SYSTEM", "UNSUPPORTED", "WRITE", "System", "after_fork", "call_sigterm_handler", "die", "exchange",
    "flush_directory", "flush_file", "handle_sigterm", "interrupted_after", "lease", "names_file", "open_files_limit",
    "open_to_read", "path_in_url", "pread", "preadv", "processors", "pwritev", "rename", "send_sigterm",
    "sigterm_handler",
]  # fmt: skip
