"""Entry point of `python -m rowcast.cli`, which starts child processes with the same interpreter."""

from rowcast.cli import main

main()
