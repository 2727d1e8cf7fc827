"""What the commands of `adscent` do, one file each; `app.cli.main` parses and calls them."""
