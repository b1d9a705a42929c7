"""`python -m engine.cli` is `reflux`."""

from engine.cli import main

main()
