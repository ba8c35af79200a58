"""What IPython and matplotlib are asked for, and what of it a snapshot keeps."""

import types

import pytest

from ipyrescue.kernel import surroundings


def _shell(reloader=None):
    registry = {} if reloader is None else {"AutoreloadMagics": types.SimpleNamespace(_reloader=reloader)}
    return types.SimpleNamespace(magics_manager=types.SimpleNamespace(registry=registry))


@pytest.mark.parametrize(
    ("state", "mode"),
    [
        (None, "off"),
        ({}, "off"),
        ({"enabled": False, "check_all": True}, "off"),
        ({"enabled": True, "check_all": False}, "1"),
        ({"enabled": True, "check_all": True, "autoload_obj": False}, "2"),
        ({"enabled": True, "check_all": True, "autoload_obj": True}, "3"),
        ({"enabled": True}, "2"),
    ],
)
def test_the_mode_of_autoreload(state, mode, monkeypatch):
    """As %autoreload takes it; another IPython may keep it elsewhere, which must not cost a snapshot."""
    monkeypatch.setitem(surroundings.sys.modules, "matplotlib", None)
    found = surroundings.facts(_shell(None if state is None else types.SimpleNamespace(**state)))

    assert found == {"autoreload": mode}
    assert surroundings.worth_keeping(found) == ({} if mode == "off" else found)


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("module://matplotlib_inline.backend_inline", "inline"),
        ("inline", "inline"),
        ("module://ipympl.backend_nbagg", "widget"),
        ("QtAgg", "qt"),
        ("agg", "agg"),
        ("module://mine", "module://mine"),
        (object(), None),
        (None, None),
    ],
)
def test_the_backend_has_the_name_that_its_magic_takes(monkeypatch, backend, name):
    """Where none is chosen yet, asking would choose one."""

    class Parameters(dict):
        def __getitem__(self, key):
            pytest.fail("asked matplotlib")

    fake = types.SimpleNamespace(rcParams=Parameters(backend=backend))
    monkeypatch.setitem(surroundings.sys.modules, "matplotlib", fake)

    assert surroundings.facts(_shell()).get("matplotlib backend") == name
