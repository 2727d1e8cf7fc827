"""Scheduled work, replay, the seeded market, the demo and the benchmarks."""
