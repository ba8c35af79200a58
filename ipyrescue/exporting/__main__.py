"""python -m ipyrescue.exporting: reads its order from standard input, answers on a pipe; not for people."""

from ipyrescue.exporting import unpickled

if __name__ == "__main__":
    unpickled.main()
