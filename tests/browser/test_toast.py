"""A person works in a notebook, the kernel is killed, and the page says what died and has it back with one click."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "train.ipynb"
SESSION = ("%load_ext ipyrescue", "x = 42", "%checkpoint_vars", "x")
USE = 3  # the cell that shows x


@pytest.fixture
def saved(lab):
    """A notebook whose variable x is in a snapshot; the cell that uses it has not run yet."""
    lab.served.write_notebook(NAME, *SESSION)
    lab.open(NAME)
    for cell in range(USE):
        lab.run(cell)
    return lab


def test_the_kernel_is_killed_and_one_click_has_it_back(saved):
    saved.kill_kernel()

    offer = saved.toast(NAME)
    saved.picture("offer")
    assert re.search(r"kill", offer.inner_text())
    assert "x" in offer.inner_text()
    saved.press(offer, "Restore")
    saved.toast("Restored 1 variable")
    saved.picture("restored")

    assert "42" in saved.run(USE)
    expect(offer).to_have_count(0)


def test_the_browser_was_closed_when_the_kernel_died(saved):
    saved.close()
    died = saved.served.kernel_pid()
    saved.served.kill_kernel()
    saved.served.wait_for_restart(died)
    saved.open(NAME)

    saved.press(saved.toast(NAME), "Restore")
    saved.toast("Restored 1 variable")

    assert "42" in saved.run(USE)


@pytest.mark.parametrize("served", ["lab"], indirect=True)
def test_the_tab_of_the_notebook_was_closed_when_the_kernel_died(saved):
    """JupyterLab is open, the notebook is not: the toast comes all the same, and its button works."""
    saved.close_document()
    saved.served.kill_kernel()

    saved.press(saved.toast(NAME), "Restore")
    saved.toast("Restored 1 variable")
    saved.close()
    saved.open(NAME)

    assert "42" in saved.run(USE)


def test_where_nothing_was_saved_the_toast_says_so(lab):
    lab.served.write_notebook(NAME, "%load_ext ipyrescue", "x = 42")
    lab.open(NAME)
    lab.run_all()

    lab.kill_kernel()

    offer = lab.toast(NAME)
    lab.picture("nothing-saved")
    assert "snapshot" in offer.inner_text().lower()
    expect(offer.get_by_role("button", name="Restore")).to_have_count(0)


def test_a_page_that_is_loaded_anew_still_makes_the_offer(saved):
    saved.kill_kernel()
    saved.toast(NAME)
    saved.reload()

    saved.press(saved.toast(NAME), "Restore")
    saved.toast("Restored 1 variable")

    assert "42" in saved.run(USE)


def test_what_was_dismissed_is_not_offered_again(saved):
    saved.kill_kernel()
    saved.press(saved.toast(NAME), "Dismiss")

    with saved.page.expect_response(re.compile(r"/ipyrescue/offers\?path=.*")) as answered:
        saved.reload()

    assert answered.value.json() == {"offers": []}
    assert saved.toasts() == []


def test_what_is_in_it_is_shown_before_it_is_restored(saved):
    saved.kill_kernel()
    saved.press(saved.toast(NAME), "What is in it?")

    contents = saved.dialog(NAME)
    saved.picture("contents")
    expect(contents.get_by_role("row", name=re.compile(r"^x int"))).to_be_visible()
    saved.press(contents, "Restore")
    saved.toast("Restored 1 variable")

    assert "42" in saved.run(USE)


def test_a_snapshot_that_cannot_be_restored_leads_to_a_sentence(saved):
    for pack in (saved.served.folder / ".ipyrescue").rglob("*.pack"):
        pack.write_bytes(bytes(pack.stat().st_size))

    saved.kill_kernel()
    saved.press(saved.toast(NAME), "Restore")

    refused = saved.toast("Not restored")
    saved.picture("refused")
    assert refused.get_by_role("button", name="Try again").is_visible()


def test_a_busy_kernel_restores_when_its_cell_has_ended(lab):
    """The page says what it waits for; nothing is interrupted."""
    wait = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)"
    lab.served.write_notebook(NAME, *SESSION[:3], "x = 0", wait, "x")
    lab.open(NAME)
    for cell in range(4):
        lab.run(cell)
    lab.begin(4)
    lab.wait_until_busy()

    lab.choose("Snapshots of this notebook")
    lab.press(lab.dialog("Snapshots of"), "Restore")
    lab.toast("The kernel is busy")
    (lab.served.folder / "go").touch()
    lab.toast("Restored 1 variable")

    assert "42" in lab.run(5)
