"""`python -m runglass` is the command `runglass`."""

import sys

from runglass.cli import main

if __name__ == "__main__":
    sys.exit(main())
