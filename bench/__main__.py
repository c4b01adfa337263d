"""Run the command line: `python -m bench`."""

import os
import sys
from pathlib import Path

# Python puts the current folder first, whose modules are for plug-ins alone.
if sys.path[0] == os.getcwd() != str(Path(__file__).parents[1]):
    del sys.path[0]

from bench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
