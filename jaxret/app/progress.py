"""Progress on a terminal: phase, images, images a second, time left."""

import sys
import time

EVERY = 0.2  # seconds between two lines
NAMES = {"reading": "reading", "learning": "learning bits from", "coding": "coding"}


class Progress:
    """Rewrites one line of stderr; silent where that is no terminal."""

    def __init__(self, enabled: bool):
        self.enabled = enabled and sys.stderr.isatty()
        self.phase = ""
        self.started = self.last = 0.0
        self.width = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase is."""
        if not self.enabled:
            return
        now = time.monotonic()
        if phase != self.phase:
            self.phase, self.started, self.last = phase, now, 0.0
        if now - self.last < EVERY and done < total:
            return
        self.last = now
        rate = done / max(now - self.started, 1e-3)
        text = f"{NAMES.get(phase, phase)} {done:,} of {total:,}"
        if done and now - self.started > 1:
            left = (total - done) / rate
            text += f", {rate:,.0f} images/s, {_clock(left)} left"
        self._show(text)

    def clear(self) -> None:
        """Remove the line."""
        if self.width:
            self._show("")
            sys.stderr.write("\r")
            sys.stderr.flush()
            self.width = 0

    def _show(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self.width))
        sys.stderr.flush()
        self.width = len(text)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
