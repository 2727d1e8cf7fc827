"""The command line: every command and option, parsed, called and printed."""
