"""The serving application: HTTP API, serving pipeline, storage and command line."""
