"""What the processor at hand can do."""

import functools
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
COUNTING = {"avx512_vpopcntdq", "asimd"}  # of x86, of ARM


@functools.cache
def counts_vectors() -> bool | None:
    """Return whether vector instructions count bits; None where the system does not tell."""
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", _cpuinfo(), re.MULTILINE)
    return not COUNTING.isdisjoint(found[1].split()) if found else None


@functools.cache
def name() -> str:
    """Return the processor's name, "" where the system does not tell."""
    found = re.search(r"^model name\s*: (.*)$", _cpuinfo(), re.MULTILINE)
    return found[1] if found else ""


def _cpuinfo() -> str:
    try:
        return CPUINFO.read_text()
    except OSError:
        return ""
