"""Benchmarks: commands that measure this machine and report ratios taken within one run.

Each measure alternates with its baseline, and medians are reported: times differ from machine to
machine and from minute to minute, ratios of neighbouring rounds hardly do.
"""
