"""The HTTP API, version 1: one file for each resource; each parses, calls and renders."""
