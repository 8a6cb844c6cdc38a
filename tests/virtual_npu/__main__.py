"""`python -m tests.virtual_npu [VERSION]` prints the path of the compiled library."""

import sys

from . import library

sys.stdout.write(library(*sys.argv[1:2]) + "\n")
