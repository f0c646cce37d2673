"""Entry point of `python -m rowcast.cli`, which runs child processes under the same interpreter."""

from rowcast.cli import main

main()
