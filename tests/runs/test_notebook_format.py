"""What the import of nbformat takes: nothing that no notebook needs, and nothing from anybody else."""

import importlib.util
import subprocess
import sys

import pytest

from ipyrescue.runs.notebook_format import without

LOADED = """
import importlib.util, sys
import ipyrescue.runs.runner
from ipyrescue.runs.notebook_format import nbformat
nbformat.validate(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x")]))
try:
    nbformat.validate({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "odd"}]})
except nbformat.ValidationError:
    print("checked")
print("rfc3987_syntax" in sys.modules, importlib.util.find_spec("rfc3987_syntax") is not None)
"""


def test_a_runner_builds_no_grammar_that_no_notebook_needs():
    if importlib.util.find_spec("rfc3987_syntax") is None:
        pytest.skip("jsonschema does not find it here")

    loaded = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False)

    assert loaded.stdout == "checked\nFalse True\n", loaded.stderr


def test_a_module_is_hidden_for_no_longer_than_the_block(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    with without("colorsys"), pytest.raises(ImportError):
        import colorsys
    import colorsys

    with without("colorsys"):
        import colorsys as there
    assert there is colorsys
