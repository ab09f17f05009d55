"""python -m tests.faults: see rounds.py."""

import sys

from tests.faults.rounds import main

if __name__ == "__main__":
    sys.exit(main())
