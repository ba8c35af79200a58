"""What is said to be typed: magics where there are magics, functions where there are none."""

import pytest

from ipyrescue.kernel.spelling import in_python


@pytest.mark.parametrize(
    ("magic", "function"),
    [
        ("To try again: %restore_vars from=ab12cd34", 'To try again: ipyrescue.restore("ab12cd34")'),
        ("%restore_vars from=ab12cd34 device=cpu", 'ipyrescue.restore("ab12cd34", device="cpu")'),
        ("It holds others: %snapshots --all", "It holds others: ipyrescue.snapshots(all_notebooks=True)"),
        ("Type %snapshots or `ipyrescue ls` to see all.", "Type ipyrescue.snapshots() or `ipyrescue ls` to see all."),
        ("%checkpoint_vars every=5m", 'ipyrescue.guard(every="5m")'),
        ("leave it out: %checkpoint_vars -x NAME", 'leave it out: ipyrescue.guard(exclude=["NAME"])'),
        ("looks like a secret; save it with --allow token", 'looks like a secret; save it with allow=["token"]'),
        ("100% of 3 snapshots", "100% of 3 snapshots"),
    ],
)  # fmt: skip
def test_a_magic_becomes_a_function(magic, function):
    assert in_python(magic) == function


def test_trust_is_given_in_ipython_only():
    line = "%restore_vars from=ab12cd34 --trust"

    assert in_python(f"trust its maker: {line}") == f"trust its maker: in IPython, {line}"
