"""Work in threads, in order, with a bounded number of results waiting."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxret.data.images import num_cpus

AHEAD = 64


def in_order(function: Callable[[Any], Any], items: Sequence, ahead: int = AHEAD) -> Iterator:
    """Return the function's value for each item, computed in threads.

    At most `ahead` values are computed before they are asked for, so that memory is bounded and
    the caller works while the next ones are computed.
    """
    if not items:
        return
    pool = ThreadPoolExecutor(num_cpus())
    try:
        remaining = iter(items)
        waiting = deque(pool.submit(function, item) for item in itertools.islice(remaining, ahead))
        while waiting:
            value = waiting.popleft().result()
            for item in remaining:
                waiting.append(pool.submit(function, item))
                break
            yield value
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
