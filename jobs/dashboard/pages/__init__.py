"""The pages, one a file: each has `add`, which registers it."""
