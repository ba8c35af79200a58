"""python -m ipyrescue.exporting: an order on standard input, the answer into a file given open; not for people."""

from ipyrescue.exporting import unpickled

if __name__ == "__main__":
    unpickled.main()
