"""Files: where this package lies, and what a disk has room for."""

from __future__ import annotations

import errno
import os
import shutil

IMPORT_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The directory from which `import rkllama` gets this very package, for the processes that it starts."""


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no room, on the disk or in the user's quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def free_space(directory: str) -> int:
    """Free bytes where `directory` lies, or will lie: for one that is missing, where it would be made."""
    directory = os.path.abspath(directory)
    while not os.path.isdir(directory) and directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
    return shutil.disk_usage(directory).free
