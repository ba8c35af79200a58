"""The fingerprint of a session and the difference of two."""

import subprocess
import sys
import types

import pytest

from ipyrescue import environment
from ipyrescue.environment import AUTORELOAD, BACKEND, CHANGES, COMMIT, GPUS, Difference


@pytest.fixture(autouse=True)
def _ask_anew():
    environment._distribution.cache_clear()


def _fake(monkeypatch, name, **fields):
    module = types.ModuleType(name)
    vars(module).update(fields)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_fingerprint_names_what_is_in_the_snapshot_and_nothing_else():
    """By the names that pip knows; of what is loaded and not in it, only the three that always are."""
    import dill  # noqa: F401
    import numpy  # noqa: F401
    import sklearn  # noqa: F401

    found = environment.fingerprint({"sklearn", "json", "__main__", "never_imported"})

    assert {"scikit-learn", "numpy"} <= found.keys()
    assert not found.keys() & {"sklearn", "dill", "json", "__main__", "never_imported"}
    assert found["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert all(isinstance(value, str) and value for value in found.values())


def test_a_module_of_the_users_own_has_no_distribution(monkeypatch):
    _fake(monkeypatch, "my_layers", __version__="0.1")

    assert "my_layers" not in environment.fingerprint({"my_layers"})


def test_the_files_of_distributions_are_read_once_for_each_module(monkeypatch):
    """It takes tens of milliseconds, in the pause of a snapshot."""
    _fake(monkeypatch, "sklearn")
    environment.fingerprint({"sklearn"})
    monkeypatch.setattr(environment.importlib.metadata, "distributions", lambda: pytest.fail("read again"))

    assert "scikit-learn" in environment.fingerprint({"sklearn"})


def test_a_library_that_is_not_loaded_has_the_version_on_disk(monkeypatch):
    """A fresh kernel has nothing loaded yet, and is compared nevertheless."""
    installed = {"torch": "2.13.0"}
    monkeypatch.setattr(environment, "_installed", installed.get)
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    found = environment.counterpart({"torch": "2.12.0", "statsmodels": "0.14", "ipyrescue": "0.1.0", "python": "3.9"})

    assert (found["torch"], found["statsmodels"]) == ("2.13.0", "none")
    assert "ipyrescue" not in found
    assert found["python"] == environment.process()["python"]


def test_a_torch_that_raises_when_asked_costs_nothing(monkeypatch):
    class Hostile(types.ModuleType):
        def __getattr__(self, name):
            raise RuntimeError(name)

    monkeypatch.setitem(sys.modules, "torch", Hostile("torch"))

    assert environment.fingerprint()["python"]


def _torch(monkeypatch, *, initialized, broken=False):
    monkeypatch.setattr(environment, "_on_devices", {})

    def name(i):
        if broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return f"H200 {i}"

    cuda = types.SimpleNamespace(
        is_initialized=lambda: initialized,
        device_count=lambda: 2 if initialized else pytest.fail("would initialise CUDA"),
        get_device_name=name,
    )
    cudnn = types.SimpleNamespace(version=lambda: 91002 if initialized else pytest.fail("would load cuDNN"))
    fields = {"cuda": cuda, "backends": types.SimpleNamespace(cudnn=cudnn)}
    _fake(monkeypatch, "torch", __version__="2.13.0+cu130", version=types.SimpleNamespace(cuda="13.0"), **fields)


def test_cuda_is_described_but_never_initialised(monkeypatch):
    _torch(monkeypatch, initialized=False)

    found = environment.fingerprint()

    assert (found["torch"], found["cuda"]) == ("2.13.0+cu130", "13.0")
    assert not found.keys() & {"cuda devices", "cudnn"}


def test_devices_are_named_where_cuda_runs(monkeypatch):
    _torch(monkeypatch, initialized=True)

    found = environment.fingerprint()

    assert (found["cuda devices"], found["cudnn"]) == ("H200 0, H200 1", "9.10.2")


def test_a_forked_child_knows_what_its_parent_saw(monkeypatch):
    """In a child torch says that CUDA does not run, and refuses to be asked."""
    _torch(monkeypatch, initialized=True)
    environment.notice_devices()
    seen = environment._on_devices
    _torch(monkeypatch, initialized=False)
    monkeypatch.setattr(environment, "_on_devices", seen)

    assert environment.fingerprint()["cuda devices"] == "H200 0, H200 1"


def test_a_broken_gpu_costs_its_name_only(monkeypatch):
    """After a device-side assert every question raises; the snapshot is what the user needs then."""
    _torch(monkeypatch, initialized=True, broken=True)

    assert environment.fingerprint()["cuda"] == "13.0"


@pytest.mark.parametrize(("number", "told"), [(91002, "9.10.2"), (8902, "8.9.2"), (None, "none")])
def test_cudnn_spells_its_version_as_one_number(number, told):
    assert environment._dotted(number) == told


def test_fingerprint_imports_nothing_heavy():
    code = (
        "import sys; from ipyrescue import environment; environment.fingerprint(['torch', 'numpy']); "
        "environment.counterpart({'torch': '2', 'numpy': '2'}); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'dill', 'IPython')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("key", "old", "new", "told"),
    [
        ("torch", "2.12.0", "2.13.0", ("2.13.0", "torch==2.12.0", "")),
        ("torch", "2.12.0", "none", ("not installed", "torch==2.12.0", "")),
        ("torch", "2.12.0+cpu", "2.13.0", ("2.13.0", "torch==2.12.0", "")),
        ("torch", "2.13.0+cu130", "2.13.0+cpu", None),
        ("torch", "2.13.0", "2.13.1", None),
        ("scikit-learn", "1.8.0", "1.9.0", ("1.9.0", "scikit-learn==1.8.0", "")),
        ("scikit-learn", "1.8.0", "1.8.1", None),
        ("pandas", "2.3.0", "2.3.0.post1", None),
        ("pandas", "2.3.3", "3.0.0", ("3.0.0", "pandas==2.3.3", "")),
        ("numpy", "2.4", "2.4.0", None),
        ("odd", "snapshot", "release", ("release", "odd==snapshot", "")),
        ("python", "3.11.7", "3.11.9", None),
        ("python", "3.11.7", "3.12.1", ("3.12.1", "", "use a kernel of Python 3.11")),
        ("implementation", "CPython", "PyPy", None),
        ("platform", "Linux x86_64", "Darwin arm64", ("Darwin arm64", "", "last bits")),
        ("cuda", "13.0", "none", None),
        ("container", "docker", "podman", None),
        ("NVIDIA driver", "580.65", "570.1", None),
        ("cudnn", "9.10.2", "9.10.1", None),
        ("cudnn", "9.10.2", "9.1.0", ("9.1.0", "", "last bits")),
        (GPUS, "A100", "H200", ("H200", "", "last bits")),
        (environment.WORKING_DIRECTORY, "/a", "/b", None),
        (COMMIT, "a" * 40, "b" * 40, ("b" * 40, "", "!git diff --stat aaaaaaaaaa")),
        (CHANGES, "uncommitted", "none", ("none", "", "git stash")),
        (CHANGES, "none", "uncommitted", None),
        (AUTORELOAD, "2", "off", ("off", "", "%load_ext autoreload, then %autoreload 2")),
        (BACKEND, "widget", "inline", ("inline", "", "%matplotlib widget")),
        (BACKEND, "module://mine", "agg", ("agg", "", "matplotlib.use('module://mine')")),
    ],
)
def test_a_difference_that_matters_is_told_with_what_mends_it(key, old, new, told):
    found = environment.differences({key: old}, {key: new})

    if told is None:
        assert found == ()
        return
    (difference,) = found
    now, requirement, advice = told
    assert (difference.key, difference.then) == (key, old)
    assert (difference.now, difference.requirement) == (now, requirement)
    assert advice in difference.advice
    assert bool(advice) == bool(difference.advice)


def test_another_implementation_is_another_python():
    then, now = ({"python": "3.11.7", "implementation": name} for name in ("PyPy", "CPython"))

    (difference,) = environment.differences(then, now)

    assert (difference.key, difference.then) == ("implementation", "PyPy")
    assert "a kernel of PyPy 3.11" in difference.advice
    assert environment.python({}) is None


def test_the_build_of_torch_matters_where_a_gpu_was_in_use():
    """And then once: the CUDA that it is for is said by its name."""
    then = {"torch": "2.13.0+cu130", "cuda": "13.0", GPUS: "H200"}

    assert environment.differences(then, {"torch": "2.13.0+cpu", "cuda": "none"}) == (
        Difference("torch", "2.13.0+cu130", "2.13.0+cpu", "torch==2.13.0", "the cu130 build"),
    )
    (difference,) = environment.differences(then | {"torch": "2.13.0"}, {"torch": "2.13.0", "cuda": "12.8"})
    assert difference.advice == "install the torch that is built for CUDA 13.0"


def test_edited_files_of_another_commit_are_no_difference_of_their_own():
    then, now = {COMMIT: "a", CHANGES: "uncommitted"}, {COMMIT: "b", CHANGES: "none"}

    assert [difference.key for difference in environment.differences(then, now)] == [COMMIT]


def test_all_versions_are_mended_by_one_line():
    then = {"torch": "2.12.0", "numpy": "2.3.1", "platform": "Linux x86_64", "polars": "1.0"}
    now = {"torch": "2.13.0", "numpy": "2.4.1", "platform": "Linux aarch64", "polars": "1.0"}

    found = environment.differences(then, now)

    assert environment.requirements(found) == "%pip install torch==2.12.0 numpy==2.3.1"
    assert environment.requirements(found[:1]) == ""


def test_what_is_unknown_now_is_not_called_different():
    then = {"torch": "2.12.0", "cuda devices": "H200", AUTORELOAD: "2"}

    assert environment.differences(then, {"numpy": "2.4.1"}) == ()


def test_a_session_does_not_differ_from_itself():
    here = environment.fingerprint({"pandas", "sklearn"})

    assert environment.differences(here, environment.counterpart(here)) == ()


def test_a_fingerprint_is_read_from_the_machine_to_the_rest():
    found = {"torch": "2", "autoreload": "2", "python": "3.11", "numpy": "2", "cuda": "none", "platform": "Linux"}

    assert [key for key, _ in environment.in_order(found)] == [
        "python", "platform", "numpy", "torch", "cuda", "autoreload",
    ]  # fmt: skip
