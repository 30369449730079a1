"""Keep the tables in a RESULTS.md the same as the table.json files that they come from.

    python experiments/results.py experiments/torres2018/RESULTS.md            # do they agree?
    python experiments/results.py --write experiments/torres2018/RESULTS.md

In the text a table stands between <!-- results/4.2/table.json --> (the file, from the text's
folder) and <!-- end -->. With the names of rows, as in
<!-- results/baselines/table.json: raw pixels; ITQ, 10 bits -->, it is one line of their scores.
Exit code 1 if text and files differ.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import harness
from table import markdown, summary_line

BLOCK = re.compile(r"(<!-- (\S+table\.json)(?:: ([^\n]+))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def renewed(path: Path) -> str:
    """Return a text with every table as its file has it.

    Raises ValueError for a row that a table does not have, OSError for a file that is not there.
    """

    def block(found: re.Match) -> str:
        table = json.loads((path.parent / found[2]).read_text())
        rows = found[3] and found[3].split("; ")
        content = summary_line(table, rows) if rows else markdown(table)
        return f"{found[1]}{content}{found[5]}"

    return BLOCK.sub(block, path.read_text())


def main() -> None:
    """Check, or write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="Bring the text up to date.")
    parser.add_argument("texts", type=Path, nargs="+", metavar="RESULTS.md")
    options = parser.parse_args()
    for path in options.texts:
        try:
            old, new = path.read_text(), renewed(path)
        except (OSError, ValueError, KeyError) as error:
            sys.exit(f"error: {path}: {error}")
        if options.write:
            harness.write_whole(path, new)
        elif old != new:
            sys.exit(f"error: {path} differs from its table.json files; --write renews it")
        print(f"{path}: {len(BLOCK.findall(new))} tables as their files have them")


if __name__ == "__main__":
    main()
