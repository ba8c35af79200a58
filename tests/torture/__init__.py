"""The store put to death in every way that is known: `make torture` runs all of it, `make test` a small part.

Each module is one experiment: a number of cases to an `Outcome`. `experiments` lists them, `table` makes the page.
"""
