"""What the commands of `adscent` do, one file each; `app.cli` parses and calls them."""
