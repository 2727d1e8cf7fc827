"""The dashboard: a process of its own that shows a deployment and lets people act on it.

It reads PostgreSQL and the Prometheus metrics of `serve` and `jobs`. What it changes it changes
through the HTTP API of `serve`, with the key that the person logged in with: one way of changing
things, one audit, one promise of acknowledgement.
"""
