"""`python -m app` is the command `pointsman`."""

from app.cli import main

main()
