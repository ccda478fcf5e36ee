"""Count what becomes of the tests' broken and odd files: read correctly, or refused."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

VOLUMES = Path(__file__).resolve().parents[1] / "tests" / "backend" / "volumes"


def main() -> None:
    """Make the corpus, read it in a child process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--napari", action="store_true", help="through the plugin's reader")
    parser.add_argument("--list", action="store_true", help="print each file and its outcome too")
    options = parser.parse_args()
    sys.path.insert(0, str(VOLUMES))
    from corpus import CASES
    from corpus.build import build, run, table

    with tempfile.TemporaryDirectory() as folder:
        entries = build(CASES, Path(folder))
        results = run(entries, Path(folder), napari=options.napari)
        print(table(entries, results))
        for entry in entries:
            result = results.get(
                entry["id"], {"outcome": "hung or skipped", "good": "skip" in entry}
            )
            if options.list or not result["good"]:
                said = result.get("why") or result.get("message") or entry.get("skip", "")
                said = said.replace(entry.get("place", folder), "")
                print(f"{entry['id']} | {result['outcome']} | {said}")


if __name__ == "__main__":
    main()
