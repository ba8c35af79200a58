"""The status button: what it says, what its menu holds, and that no mouse is needed."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "train.ipynb"


@pytest.fixture
def opened(lab):
    """A notebook with two generations of x, none of its cells run yet."""
    lab.served.write_notebook(NAME, "%load_ext ipyrescue", "x = 42", "%checkpoint_vars every=5m", "x = 0", "x")
    lab.open(NAME)
    return lab


def test_it_says_whether_the_notebook_is_protected(opened):
    opened.wait_for_status("not_loaded")
    opened.picture("not-loaded")
    opened.run(0)
    opened.wait_for_status("not_armed")
    opened.run(1)
    opened.run(2)
    opened.wait_for_status("protected")
    opened.picture("protected")

    expect(opened.status).to_have_text(re.compile("protected"))


def test_the_dialog_lists_the_snapshots_and_restores_one(opened):
    for cell in range(4):
        opened.run(cell)

    opened.choose("Snapshots of this notebook")
    snapshots = opened.dialog(f"Snapshots of {NAME}")
    opened.picture("snapshots")
    expect(snapshots.get_by_role("table").locator("tbody tr")).to_have_count(1)
    opened.press(snapshots, "Restore")
    opened.toast("Restored 1 variable")

    assert "42" in opened.run(4)


def test_checkpoint_now_makes_a_snapshot(opened):
    opened.run(1)

    opened.choose("Checkpoint now")

    opened.toast("Saved 1 variable")
    opened.choose("Snapshots of this notebook")
    expect(opened.dialog("Snapshots of").locator("tbody tr")).to_have_count(1)


@pytest.mark.parametrize("served", ["lab"], indirect=True)
def test_it_is_reached_and_opened_without_a_mouse(opened):
    """In Notebook 7 no button of the toolbar is reached by Tab, its own neither; there the palette is the way."""
    for cell in range(3):
        opened.run(cell)

    opened.tab_to(opened.status)
    opened.page.keyboard.press("Enter")
    expect(opened.menu).to_be_visible()
    opened.picture("menu")
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("Enter")

    expect(opened.dialog(f"Snapshots of {NAME}").get_by_role("table")).to_be_visible()
    opened.page.keyboard.press("Escape")
    expect(opened.page.locator(".jp-Dialog")).to_have_count(0)


def test_the_snapshots_are_reached_from_the_command_palette(opened):
    for cell in range(3):
        opened.run(cell)

    opened.command("Snapshots of this notebook")

    expect(opened.dialog(f"Snapshots of {NAME}").locator("tbody tr")).to_have_count(1)
    opened.page.keyboard.press("Escape")
    expect(opened.page.locator(".jp-Dialog")).to_have_count(0)
