"""`python -m streamline` is the `streamline` command."""

from streamline.cli.main import main

main()
