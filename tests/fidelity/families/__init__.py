"""The cases: one file for each family, each a prelude that all its cases share and a list of cases."""
