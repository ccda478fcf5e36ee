"""`python -m spad`: the same command as `spad`."""

from __future__ import annotations

import sys

from spad.cli import main

if __name__ == "__main__":
    sys.exit(main())
