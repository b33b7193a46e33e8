"""Run the command line: `python -m statedict`."""

from statedict.cli import main

main()
