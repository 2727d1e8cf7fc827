"""The seeded marketplace: advertisers, ads and visitors whose true click probabilities are known.

Pure NumPy and deterministic by seed. The demo, the divergence lab and the benchmarks draw on it.
"""

from jobs.market.market import Market
from jobs.market.people import Visitors

__all__ = ["Market", "Visitors"]
