#!/opt/rkllama/bin/python3
import sys

from rkllama.__main__ import main

sys.exit(main())
