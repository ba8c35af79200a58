"""python -m ipyrescue.checking: the fresh process of a check. Reads its order from standard input; not for people."""

from ipyrescue.checking import fresh

if __name__ == "__main__":
    fresh.main()
