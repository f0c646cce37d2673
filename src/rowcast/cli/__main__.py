"""Entry point of `python -m rowcast.cli`. Child processes run it with the interpreter of their parent."""

from rowcast.cli import main

main()
