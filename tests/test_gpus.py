"""Why torch sees no GPU: facts into sentences, and files into facts."""

import dataclasses
import re
import sys
import types

import pytest

from ipyrescue import gpus
from ipyrescue.gpus import Facts

GOOD = Facts(torch="2.13.0+cu130", cuda="13.0", driver="580.65.06", shown=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"torch": "2.13.0+cpu", "cuda": None}, [r"this torch \(2.13.0\+cpu\) is built for the CPU only.*CUDA build"]),
        ({"visible": ""}, ["CUDA_VISIBLE_DEVICES is '', which hides every GPU"]),
        ({"visible": "-1"}, ["CUDA_VISIBLE_DEVICES is '-1', which hides every GPU"]),
        ({"visible": "NoDevFiles"}, ["which hides every GPU"]),
        ({"visible": "0,1"}, []),
        ({"visible": "GPU-8932f937"}, []),
        ({"visible": "MIG-c7384736"}, []),
        ({"shown": False, "driver": None}, ["no NVIDIA GPU here, or no driver"]),
        ({"shown": False}, [r"driver 580.65.06 shows no GPU .*nvidia-smi"]),
        ({"shown": False, "container": "docker"}, ["this container was given no GPU.*--gpus all"]),
        ({"driver": "470.57.02"}, [r"driver 470.57.02 is too old for CUDA 13.0.*update it to 580 or newer"]),
        ({"driver": "535.1", "cuda": "12.8"}, []),
        ({"driver": "1.2", "cuda": "99.0"}, []),
        ({"driver": None}, []),
        ({"torch": "2.13.0+rocm7", "cuda": None, "rocm": "7.0", "driver": None}, []),
        ({"torch": "", "cuda": None}, []),
        ({"system": "Darwin", "shown": False, "torch": "2.13.0", "cuda": None}, ["no CUDA for macOS"]),
        ({"said": "CUDA unknown error"}, ["torch says: CUDA unknown error"]),
        ({"said": "too old (found version 11040)", "driver": "470.1"}, ["driver 470.1 is too old"]),
        (
            {"torch": "2.13.0+cpu", "cuda": None, "visible": "", "shown": False, "container": "podman"},
            ["CPU only", "CUDA_VISIBLE_DEVICES", "container"],
        ),
    ],
)
def test_every_reason_is_told(changes, words):
    """Mending one reason would only show the next, so all of them stand there; what is good is not blamed."""
    found = gpus.reasons(dataclasses.replace(GOOD, **changes))

    assert len(found) == len(words), found
    for reason, pattern in zip(found, words, strict=True):
        assert re.search(pattern, reason)


def test_why_there_is_none():
    assert gpus.why_none(GOOD) == (
        "torch.cuda.is_available() is False: nothing that can be seen from here says why; nvidia-smi may."
    )
    several = gpus.why_none(dataclasses.replace(GOOD, visible="", shown=False))
    assert several.count("; and ") == 1
    assert several.endswith("shows no GPU (there is no /dev/nvidia0); nvidia-smi may tell why.")


def test_why_there_are_fewer():
    assert gpus.why_fewer(1, GOOD) == "torch sees 1 GPU here."
    assert gpus.why_fewer(2, dataclasses.replace(GOOD, visible="0,1")) == (
        "torch sees 2 GPUs here, as CUDA_VISIBLE_DEVICES=0,1 says."
    )


DRIVER = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:13:48 UTC 2025
GCC version:  gcc version 12.2.0
"""
OPEN_DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (dvs-builder@U16)\n"


@pytest.mark.parametrize(
    ("text", "version"), [(DRIVER, "580.65.06"), (OPEN_DRIVER, "570.124.06"), ("nonsense", None), ("", None)]
)
def test_the_driver_is_read_from_its_file(tmp_path, text, version):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(text)

    assert gpus.driver_version(tmp_path) == version


@pytest.mark.parametrize(
    ("files", "environ", "kind"),
    [
        ({}, {}, None),
        ({".dockerenv": ""}, {}, "docker"),
        ({"run/.containerenv": ""}, {}, "podman"),
        ({".singularity.d/env": ""}, {}, "apptainer"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"proc/1/cgroup": "0::/system.slice/containerd.service\n"}, {}, "containerd"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, {}, None),
        ({"proc/1/cgroup": "0::/\n"}, {"container": "lxc"}, "lxc"),
    ],
)
def test_a_container_is_known_by_its_files(tmp_path, files, environ, kind):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert gpus.container(tmp_path, environ) == kind


@pytest.mark.parametrize("device", ["nvidia0", "dxg", "kfd", None])
def test_facts_are_collected_without_asking_cuda(tmp_path, monkeypatch, device):
    """Neither a torch that is not loaded is imported, nor is one that is loaded asked for more than its versions."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    if device:
        (tmp_path / "dev" / device).touch()
    torch = types.SimpleNamespace(__version__="2.13.0+cu130", version=types.SimpleNamespace(cuda="13.0", hip=None))
    monkeypatch.setitem(sys.modules, "torch", torch)

    found = gpus.look("said", tmp_path, {"CUDA_VISIBLE_DEVICES": "1"})

    assert (found.torch, found.cuda, found.visible, found.said) == ("2.13.0+cu130", "13.0", "1", "said")
    assert found.shown is (device is not None)
    monkeypatch.delitem(sys.modules, "torch")
    assert gpus.look("", tmp_path, {}).torch == ""
