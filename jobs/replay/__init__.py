"""`adscent replay`: a log through the trainer, chunk by chunk, into a report and a page."""
