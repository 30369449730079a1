"""Runs `jaxret.index.build` slowly and tells of each step, for a test that kills it.

python index_run.py PHOTOS: prints "phase done total" for each step, and "publish" before a snapshot
is written; waits a moment after each line.
"""

import sys
import time

from jaxret.index import snapshot
from jaxret.index.update import build

PAUSE = 0.05  # seconds


def tell(*words: object) -> None:
    """Print a step at once."""
    print(*words, flush=True)
    time.sleep(PAUSE)


def main() -> None:
    """Index the folder that is named."""
    publish = snapshot.publish

    def slowly(*arguments):
        publish(*arguments)
        tell("publish")

    snapshot.publish = slowly
    build(sys.argv[1], model="look", progress=tell)


if __name__ == "__main__":
    main()
