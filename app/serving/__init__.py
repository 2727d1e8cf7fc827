"""Serving: from a request and one immutable bundle to scored or decided ads."""
