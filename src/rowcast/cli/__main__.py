"""Entry point of `python -m rowcast.cli`, the command that starts child processes with the same interpreter."""

from rowcast.cli import main

main()
