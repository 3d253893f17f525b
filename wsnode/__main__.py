"""`python -m wsnode`, the same as the command `wsnode`."""

import sys

from wsnode.cli import main

sys.exit(main())
