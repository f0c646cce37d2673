"""Entry point of `python -m rowcast.cli`. Child processes run it with their parent's interpreter."""

from rowcast.cli import main

main()
