"""`python -m ipyrescue` is the command `ipyrescue`."""

from ipyrescue.cli import main

if __name__ == "__main__":
    main()
