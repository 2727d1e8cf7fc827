"""When the command was given: a shell script that becomes this process keeps its start time."""

from __future__ import annotations

import os
import time
from pathlib import Path


def age_s() -> float:
    """Seconds since this process was started, by the kernel's record; 0 where there is none."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(time.clock_gettime(time.CLOCK_BOOTTIME) - started_s, 0.0)
    except (OSError, AttributeError, IndexError, ValueError):
        return 0.0
