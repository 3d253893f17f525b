"""`python -m stack`: what `./wslab` becomes once .venv stands."""

import sys

from stack.cli import main

sys.exit(main(sys.argv[1:]))
