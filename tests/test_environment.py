"""The fingerprint of a session and the difference of two."""

import subprocess
import sys
import types

import pytest

from ipyrescue import environment


def _fake(monkeypatch, name, **fields):
    module = types.ModuleType(name)
    vars(module).update(fields)
    monkeypatch.setitem(sys.modules, name, module)


def test_fingerprint_names_what_is_loaded_and_nothing_else(monkeypatch):
    _fake(monkeypatch, "sklearn", __version__="1.8.0")
    monkeypatch.delitem(sys.modules, "statsmodels", raising=False)

    found = environment.fingerprint()

    assert found["scikit-learn"] == "1.8.0"
    assert found["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert "statsmodels" not in found
    assert all(isinstance(value, str) for value in found.values())


def test_an_expected_library_is_looked_up_on_disk(monkeypatch):
    """A fresh kernel has nothing loaded yet, and is compared nevertheless."""
    monkeypatch.setattr(
        environment.importlib.metadata, "version", lambda name: {"torch": "2.13.0"}.get(name) or _missing(name)
    )
    for module in ("torch", "statsmodels"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    found = environment.fingerprint(["torch", "statsmodels"])

    assert (found["torch"], found["statsmodels"], found["ipyrescue"]) == ("2.13.0", "none", "unknown")


def _missing(name):
    raise environment.importlib.metadata.PackageNotFoundError(name)


def test_a_module_that_raises_when_asked_has_no_version(monkeypatch):
    class Hostile(types.ModuleType):
        def __getattr__(self, name):
            raise RuntimeError(name)

    monkeypatch.setitem(sys.modules, "keras", Hostile("keras"))

    assert "keras" not in environment.fingerprint()


def _torch(monkeypatch, *, initialized):
    cuda = types.SimpleNamespace(
        is_initialized=lambda: initialized,
        device_count=lambda: 2 if initialized else pytest.fail("would initialise CUDA"),
        get_device_name=lambda i: f"H200 {i}",
    )
    _fake(monkeypatch, "torch", __version__="2.13.0+cu130", cuda=cuda, version=types.SimpleNamespace(cuda="13.0"))


def test_cuda_is_described_but_never_initialised(monkeypatch):
    _torch(monkeypatch, initialized=False)

    found = environment.fingerprint()

    assert found["cuda"] == "13.0"
    assert "cuda devices" not in found


def test_devices_are_named_where_cuda_runs(monkeypatch):
    _torch(monkeypatch, initialized=True)

    assert environment.fingerprint()["cuda devices"] == "H200 0, H200 1"


def test_fingerprint_imports_nothing_heavy():
    code = (
        "import sys; from ipyrescue import environment; environment.fingerprint(['torch', 'numpy']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'dill', 'IPython')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("key", "old", "new", "told"),
    [
        ("torch", "2.12.0", "2.13.0", "torch 2.12.0 -> 2.13.0: pip install torch==2.12.0"),
        ("torch", "2.12.0", "none", "torch 2.12.0 -> not installed: pip install torch==2.12.0"),
        (
            "torch",
            "2.13.0+cu130",
            "2.13.0+cpu",
            "torch 2.13.0+cu130 -> 2.13.0+cpu: pip install torch==2.13.0 (the cu130 build)",
        ),
        ("torch", "2.13.0+cu130", "2.13.0", None),
        ("scikit-learn", "1.8.0", "1.8.1", "scikit-learn 1.8.0 -> 1.8.1: pip install scikit-learn==1.8.0"),
        ("pandas", "2.3.0", "2.3.0.post1", None),
        ("numpy", "2.4", "2.4.0", None),
        ("python", "3.11.7", "3.12.1", "python 3.11.7 -> 3.12.1"),
        ("platform", "Linux x86_64", "Darwin arm64", "platform Linux x86_64 -> Darwin arm64"),
        ("cuda", "13.0", "none", "cuda 13.0 -> none"),
        ("ipyrescue", "0.1.0", "unknown", None),
        ("unheard-of", "1", "2", "unheard-of 1 -> 2"),
    ],
)
def test_a_difference_is_told_with_the_command_that_mends_it(key, old, new, told):
    assert environment.differences({key: old}, {key: new}) == ([told] if told else [])


def test_what_is_unknown_now_is_not_called_different():
    then = {"torch": "2.12.0", "cuda devices": "H200", environment.WORKING_DIRECTORY: "/home/ada"}

    assert environment.differences(then, {"numpy": "2.4.1"}) == []


def test_a_session_does_not_differ_from_itself():
    here = environment.fingerprint()

    assert environment.differences(here, environment.fingerprint(here)) == []
