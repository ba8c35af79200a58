"""What a kernel of a run is started with, what it answers, and which line says how far it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ipyrescue.errors import RunError
from ipyrescue.runs.attempt import what_it_said
from ipyrescue.runs.journal import last_line
from ipyrescue.runs.kernel import answer_of, environment

MANAGER = SimpleNamespace(kernel_name="torch", kernel_spec=SimpleNamespace(argv=["/opt/torch/bin/python", "-m"]))


def reply(**said: object) -> dict[str, object]:
    return {"status": "ok", "user_expressions": {"it": said}}


def test_a_kernel_has_its_notebooks_name_and_nothing_of_a_jupyter_around_the_runner() -> None:
    around = {"PATH": "/bin", "JPY_SESSION_NAME": "other.ipynb", "JPY_API_TOKEN": "x", "LR": "1"}

    made = environment(around, {"LR": "2"}, "/work/train.ipynb", "/store")

    assert made == {"PATH": "/bin", "LR": "2", "JPY_SESSION_NAME": "/work/train.ipynb", "IPYRESCUE_STORE": "/store"}


def test_an_answer_is_json() -> None:
    assert answer_of(reply(status="ok", data={"text/plain": '{"snapshot": "ab"}'}), MANAGER) == {"snapshot": "ab"}


def test_a_python_without_ipyrescue_is_named_with_what_installs_it() -> None:
    refused = reply(status="error", ename="ModuleNotFoundError", evalue="No module named 'ipyrescue'")

    with pytest.raises(RunError, match=r"kernel torch has no ipyrescue .* /opt/torch/bin/python -m pip install"):
        answer_of(refused, MANAGER)


@pytest.mark.parametrize("said", [{"status": "ok", "data": {"text/plain": "3"}}, {"status": "ok"}, {}])
def test_nonsense_is_no_answer(said: dict[str, object]) -> None:
    with pytest.raises(RunError, match="no answer that makes sense"):
        answer_of(reply(**said), MANAGER)


@pytest.mark.parametrize(
    ("tail", "line"),
    [
        (b"", None),
        (b"\n \n", None),
        (b"epoch 1\nepoch 2\n", "epoch 2"),
        (b" 10%|#\r 20%|##", "20%|##"),
        (b"\x1b[31mred\x1b[0m\n", "red"),
        (b"\xff\xfe cut off", "\ufffd\ufffd cut off"),
        (b"x" * 500, "x" * 117 + "..."),
        (b"loss 0.1\npassword=hunter2-Sup3rSecret!\n", None),
        (b"uploading, " + b"x" * 100 + b" token='hunter2-Sup3rSecret'", None),
        (b"loss=0.5 lr=3e-4", "loss=0.5 lr=3e-4"),
    ],
)
def test_the_last_line_says_how_far_a_run_is(tail: bytes, line: str | None) -> None:
    assert last_line(tail) == line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ValueError: 3 is too many", "ValueError: 3 is too many"),
        ("ValueError: password=hunter2-Sup3rSecret!", "ValueError"),
        ("KeyError", "KeyError"),
    ],
)
def test_the_record_of_a_run_has_no_secret_of_an_exception(error: str, said: str) -> None:
    assert what_it_said(error) == said
