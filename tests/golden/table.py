"""Print every golden case with its largest error: `python tests/golden/table.py`."""

from __future__ import annotations

import sys

from golden_cases import all_cases


def main() -> int:
    """Print the table; the exit code tells whether all cases are within their tolerance."""
    bad = 0
    for case in all_cases():
        error = case.error()
        good = error <= case.tolerance
        bad += not good
        allowed = f"{case.tolerance:.0e}" if case.tolerance else "exact"
        line = f"{case.row:>2}  {case.name:<46} {error:9.2e}  (allowed {allowed})"
        sys.stdout.write(f"{line}{'' if good else '  TOO FAR OFF'}\n")
    sys.stdout.write(f"{bad} cases are too far off\n" if bad else "all cases within tolerance\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
