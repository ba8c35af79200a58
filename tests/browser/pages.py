"""What a person does and sees in JupyterLab or Notebook 7, as verbs. Knows the pages' elements; the tests do not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import BrowserContext, Locator, Page, expect

if TYPE_CHECKING:
    from frontends import FrontEnd

PATIENCE_MILLISECONDS = 30_000.0
expect.set_options(timeout=PATIENCE_MILLISECONDS)
MOST_TABS = 80  # so often does a person press Tab at most before giving up


class Lab:
    """A browser window on one front end. Every verb waits for what it is about."""

    def __init__(self, context: BrowserContext, served: FrontEnd, story: str) -> None:
        self.served = served
        self.page: Page
        self._context, self._story, self._pictures = context, story, 0
        context.set_default_timeout(PATIENCE_MILLISECONDS)

    def open(self, name: str) -> None:
        """Open the notebook *name* in a new tab of the browser, and wait for its kernel."""
        self.page = self._context.new_page()
        self.page.goto(self.served.address(name))
        self.wait_for_kernel()

    def reload(self) -> None:
        """Load the page anew."""
        self.page.reload()
        self.wait_for_kernel()

    def close(self) -> None:
        """Close the tab of the browser; the kernel runs on."""
        self.page.close()

    def close_document(self) -> None:
        """Close JupyterLab's tab of the notebook, and save it; the kernel runs on."""
        self.page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current .lm-TabBar-tabCloseIcon").click()
        self.press(self.dialog("Save your work"), "Save")
        expect(self._cells).to_have_count(0)

    def wait_for_kernel(self) -> None:
        """Wait until the notebook is shown and its kernel takes cells."""
        expect(self._cells.first).to_be_visible()
        expect(self.page.locator(".jp-Spinner")).to_have_count(0)
        expect(self.page.locator(".jp-Toolbar-kernelName:visible")).to_contain_text("Python 3")
        self._wait_for_indicator("idle")

    def begin(self, cell: int) -> None:
        """Start the cell with this number, counted from 0, and do not wait for it."""
        self._cells.nth(cell).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def wait_until_busy(self) -> None:
        """Wait until the page shows that a cell runs."""
        self._wait_for_indicator("busy")

    def run(self, cell: int) -> str:
        """Run the cell with this number to its end; return what it shows."""
        self.begin(cell)
        expect(self._cells.nth(cell).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))
        return self.output(cell)

    def run_all(self) -> None:
        """Run every cell, one after the other."""
        for cell in range(self._cells.count()):
            self.run(cell)

    def run_the_one_that_says(self, text: str) -> None:
        """Run the cell in whose source *text* stands, to its end."""
        cell = self._cells.filter(has_text=text)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        expect(cell.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))

    def output(self, cell: int) -> str:
        """What a cell shows now."""
        return "\n".join(self.outputs(cell).all_inner_texts())

    def outputs(self, cell: int) -> Locator:
        """What a cell shows, to wait for."""
        return self._cells.nth(cell).locator(".jp-OutputArea-output")

    def kill_kernel(self) -> None:
        """Kill the kernel from a terminal, and press Ok where Jupyter says that it appears to have died."""
        self.served.kill_kernel()
        modal = self.page.locator(".jp-Dialog", has_text="Kernel Restarting")
        modal.get_by_role("button", name="Ok").click()
        expect(modal).to_have_count(0)

    def toast(self, text: str) -> Locator:
        """The notification that says *text*, once it is there."""
        shown = self.page.locator(".Toastify__toast", has_text=text)
        expect(shown).to_be_visible()
        return shown

    def toasts(self) -> list[str]:
        """What all notifications say that stand there now."""
        return self.page.locator(".Toastify__toast").all_inner_texts()

    def press(self, within: Locator, button: str) -> None:
        """Click the *button* of a notification or a dialog."""
        within.get_by_role("button", name=button, exact=True).click()

    @property
    def status(self) -> Locator:
        """The button that says how well the notebook is protected."""
        return self.page.locator(".jp-ipyrescue-status:visible")

    def wait_for_status(self, state: str) -> None:
        """Wait until the status button shows a *state*."""
        expect(self.status).to_have_attribute("data-state", state)

    @property
    def menu(self) -> Locator:
        """The menu of the status button."""
        return self.page.locator(".jp-ipyrescue-menu")

    def choose(self, entry: str) -> None:
        """Open the menu of the status button, and take an *entry* of it."""
        self.status.click()
        self.menu.get_by_role("menuitem", name=entry).click()

    def dialog(self, title: str) -> Locator:
        """The dialog with this *title*, once it is there."""
        shown = self.page.locator(".jp-Dialog", has=self.page.locator(".jp-Dialog-header", has_text=title))
        expect(shown).to_be_visible()
        return shown

    def command(self, name: str) -> None:
        """Run a command by its name, from the command palette, with the keyboard alone."""
        self.page.keyboard.press("Control+Shift+C")
        expect(self.page.locator(".lm-CommandPalette-input:focus")).to_be_visible()
        self.page.keyboard.type(name)
        expect(self.page.locator(".lm-CommandPalette-item.lm-mod-active", has_text=name)).to_be_visible()
        self.page.keyboard.press("Enter")

    def tab_to(self, wanted: Locator) -> None:
        """Press Tab until *wanted* has the focus."""
        self.page.keyboard.press("Escape")
        for _ in range(MOST_TABS):
            self.page.keyboard.press("Tab")
            if wanted.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"not reached by {MOST_TABS} presses of Tab: {wanted}")

    def picture(self, name: str) -> None:
        """Keep what is seen now for a person to look at, in the folder that SCREENSHOTS names, if it does."""
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            self._pictures += 1
            story = re.sub(r"\W+", "-", self._story.removeprefix("test_")).strip("-")
            self.page.screenshot(path=Path(folder) / f"{story}-{self._pictures}-{name}.png", animations="disabled")

    def _wait_for_indicator(self, status: str) -> None:
        expect(self.page.locator(f".jp-Notebook-ExecutionIndicator[data-status={status}]:visible")).to_be_visible()

    @property
    def _cells(self) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell")
