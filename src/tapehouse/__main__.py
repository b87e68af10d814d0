"""`python -m tapehouse` is `tapehouse`."""

from tapehouse.cli import main

main()
