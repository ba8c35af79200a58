"""What `make lab` opens does what it promises: kill its kernel, press Restore, and run the last cell."""

import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_crash_in_a_minute.ipynb"
MINUTES_MILLISECONDS = 180_000.0


@pytest.mark.parametrize("served", ["lab"], indirect=True)
def test_your_turn_to_kill(lab):
    shutil.copy(NOTEBOOK, lab.served.folder)
    lab.open(NOTEBOOK.name)
    lab.command("Run All Cells")
    told = lab.page.get_by_text(re.compile(r"kill -9 \d+"))
    expect(told).to_be_visible(timeout=MINUTES_MILLISECONDS)
    lab.wait_for_kernel()

    lab.kill_kernel()
    lab.press(lab.toast(NOTEBOOK.name), "Restore")
    lab.toast("Restored")
    lab.picture("your-turn")
    lab.run_the_one_that_says("assert all(same)")

    expect(lab.page.locator('.jp-OutputArea-output[data-mime-type*="error"]')).to_have_count(0)
