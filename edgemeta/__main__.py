"""`python -m edgemeta`: the command line, where no script was installed."""

from edgemeta.cli import main

main()
