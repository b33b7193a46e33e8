"""`python -m statedict` is the command line."""

from statedict.cli import main

main()
