"""What a terminal asks of a kernel and what comes back, over files that anybody may have written."""

import json
import os
import threading

import pytest

from ipyrescue.errors import StoreError
from ipyrescue.store import layout, requests

KERNEL, SNAPSHOT = "a" * 16, "b" * 16


@pytest.fixture
def root(tmp_path):
    layout.create(tmp_path / ".ipyrescue")
    return tmp_path / ".ipyrescue"


def ask(root, **options):
    return requests.ask(root, KERNEL, requests.Request.new(patience_seconds=60.0, **options))


def test_a_request_is_seen_answered_and_gone(root):
    assert requests.pending(root, KERNEL) is None
    asked = ask(root)
    assert requests.answered(root, KERNEL) is None

    seen = requests.pending(root, KERNEL)
    assert (seen, requests.answered(root, KERNEL).final) == (asked, False)
    assert requests.pending(root, KERNEL) == asked

    requests.answer(root, KERNEL, seen, snapshot_id=SNAPSHOT)
    assert requests.answered(root, KERNEL) == requests.Answer(asked.id, SNAPSHOT, None)
    assert requests.pending(root, KERNEL) is None
    assert not requests.waits(root, KERNEL, asked)


def test_files_are_private_and_refusals_short(root):
    requests.answer(root, KERNEL, ask(root), refusal="x" * 10_000)
    ask(root)

    assert len(requests.answered(root, KERNEL).refusal) == 1000
    for path in (layout.request_path(root, KERNEL), layout.answer_path(root, KERNEL)):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not list(layout.temporary(root).iterdir())


def test_who_asks_meanwhile_joins_and_an_old_request_is_replaced(root):
    first = ask(root, now=1000.0)

    second = ask(root, now=1010.0)
    assert second == first

    third = ask(root, now=1061.0)
    assert third.id != first.id


def test_many_who_ask_at_once_wait_for_one_answer(root):
    asked = []
    threads = [threading.Thread(target=lambda: asked.append(ask(root))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(asked), len({request.id for request in asked})) == (20, 1)


def test_a_request_that_nobody_waits_for_any_more_is_removed(root):
    ask(root, now=1000.0)

    assert requests.pending(root, KERNEL, now=1061.0) is None
    assert not layout.request_path(root, KERNEL).exists()


def test_one_that_was_taken_back_is_not_seen_and_only_that_one_is_taken(root):
    first = ask(root)
    requests.withdraw(root, KERNEL, first)
    assert requests.pending(root, KERNEL) is None

    second = ask(root)
    requests.withdraw(root, KERNEL, first)
    assert requests.pending(root, KERNEL) == second


def test_one_that_was_answered_is_not_answered_again(root):
    """The kernel died between its answer and the removal, or somebody put the file back."""
    request = ask(root)
    text = layout.request_path(root, KERNEL).read_text()
    requests.answer(root, KERNEL, request, refusal="no")
    layout.request_path(root, KERNEL).write_text(text)

    assert requests.pending(root, KERNEL) is None
    assert not layout.request_path(root, KERNEL).exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"id": "' + "a" * 16 + '"}',
        '{"id": "../../../x", "at": 1.0, "until": 9e9}',
        '{"id": "aaaaaaaaaaaaaaaa", "at": 1, "until": 2}',
        '{"id": "aaaaaaaaaaaaaaaa", "at": NaN, "until": NaN}',
        '{"id": "aaaaaaaaaaaaaaaa", "at": Infinity, "until": Infinity}',
        '{"id": "aaaaaaaaaaaaaaaa", "at": 1.0, "until": 2.0, "code": "x"}',
        '{"id": "aaaaaaaaaaaaaaaa", "snapshot_id": "../x", "refusal": null}',
        '{"id": "aaaaaaaaaaaaaaaa", "snapshot_id": null, "refusal": ["x"]}',
        '{"id": 5, "snapshot_id": null, "refusal": null}',
        "[" * 4000,
        " " * 5000,
        '{"id": "' + "a" * 5000 + '"}',
    ],
)
def test_what_is_no_request_and_no_answer_is_none(root, text):
    layout.request_path(root, KERNEL).write_text(text)
    layout.answer_path(root, KERNEL).write_text(text)

    assert requests.pending(root, KERNEL) is None
    assert requests.answered(root, KERNEL) is None
    assert ask(root) == requests.pending(root, KERNEL)


def test_links_and_pipes_are_not_followed(root, tmp_path):
    ask(root)
    genuine = tmp_path / "genuine"
    layout.request_path(root, KERNEL).rename(genuine)
    layout.request_path(root, KERNEL).symlink_to(genuine)
    os.mkfifo(layout.answer_path(root, KERNEL))

    assert requests.pending(root, KERNEL) is None
    assert requests.answered(root, KERNEL) is None


def test_what_is_left_is_cleared_when_a_kernel_ends(root):
    requests.answer(root, KERNEL, ask(root), refusal="no")
    ask(root)

    requests.clear(root, KERNEL)

    assert layout.mail(root) == []
    requests.clear(root, KERNEL)


def test_a_store_that_is_gone_is_said(root):
    layout.kernels(root).rename(root.parent / "elsewhere")

    assert requests.pending(root, KERNEL) is None
    with pytest.raises((StoreError, FileNotFoundError)):
        ask(root)


def test_the_file_says_no_more_than_it_must(root):
    ask(root)

    assert sorted(json.loads(layout.request_path(root, KERNEL).read_text())) == ["at", "id", "until"]
