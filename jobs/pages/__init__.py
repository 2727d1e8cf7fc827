"""What the pages of reports are made of: markup, style and charts, in one file and no script."""
