"""Which of several ways to the same answer is fastest here: found out while they answer.

What a processor can do decides that, and no table of processors is kept. A way is chosen by rule at
first. Once searches of a kind have taken as long as it costs to compile another way, both answer in
turn a few times, and the faster one answers from then on. The answers are the same, so nothing but
time depends on the choice.
"""

import statistics
from collections.abc import Sequence

PATIENCE = 2.0  # seconds of searches before another way is tried
LONG = 0.5  # seconds: a search that takes longer is not tried in another way, which may take longer
TIMES = 3  # that each way is timed; before that it runs once, as it may have to be compiled


class Trial:
    """The ways to answer searches of one kind, the first one by rule, and what they take."""

    def __init__(self, ways: Sequence[str]):
        self.ways = ways
        self.best: str | None = None if len(ways) > 1 else ways[0]
        self._calls, self._spent = 0, 0.0
        self._taken: dict[str, list[float]] = {way: [] for way in ways}

    def way(self) -> str:
        """Return the way for the next search."""
        if self.best is not None:
            return self.best
        if self._spent < PATIENCE:
            return self.ways[0]
        return min(self.ways, key=lambda way: len(self._taken[way]))

    def took(self, way: str, seconds: float) -> None:
        """Note how long a search took, from its beginning until its result was there."""
        self._calls += 1
        if self.best is not None or self._calls == 1:  # the first one may have been compiled
            return
        if self._spent < PATIENCE:
            self._spent += seconds
            if self._spent >= PATIENCE and self._spent > LONG * (self._calls - 1):
                self.best = self.ways[0]
            return
        self._taken[way].append(seconds)
        if all(len(taken) > TIMES for taken in self._taken.values()):
            self.best = min(self.ways, key=lambda way: statistics.median(self._taken[way][1:]))
