"""`python -m rowcast.cli`, for child processes that must run under this very interpreter."""

from rowcast.cli import main

main()
