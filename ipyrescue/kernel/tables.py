"""Lines and rows into aligned text, and into HTML that follows the theme of whatever shows it. Knows no snapshots.

The HTML carries its style inline, because a notebook that is not trusted loses everything else. It sets no
background and no text colour of its own, only what JupyterLab or VS Code call theirs; borders and stripes are
half transparent, so that they show on light and dark alike.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from ipyrescue.wording import clean

_FONT = "font-family:var(--jp-ui-font-family,var(--vscode-font-family,inherit));font-size:var(--jp-ui-font-size1,13px)"
_BORDER = "1px solid var(--jp-border-color2,var(--vscode-panel-border,rgba(128,128,128,.4)))"
_CODE_FONT = "font-family:var(--jp-code-font-family,var(--vscode-editor-font-family,monospace))"
_STYLES = {
    "plain": "color:inherit",
    "hint": "color:var(--jp-ui-font-color2,var(--vscode-descriptionForeground,inherit))",
    "success": "color:var(--jp-success-color0,var(--vscode-testing-iconPassed,#2e8b40))",
    "warning": "color:var(--jp-warn-color0,var(--vscode-editorWarning-foreground,#b8730a))",
    "error": "color:var(--jp-error-color0,var(--vscode-errorForeground,#d9443f))",
    "code": f"color:inherit;white-space:pre;{_CODE_FONT}",
}


@dataclass(frozen=True)
class Line:
    """One sentence; *level* is `plain`, `hint`, `success`, `warning` or `error`, or `code` for a line of a program."""

    text: str
    level: str = "plain"


@dataclass(frozen=True)
class Table:
    """Rows of texts under *columns*; the columns named in *numbers* are flush right. *caption* stands above."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[str, ...] = ()
    caption: str = ""

    def without_empty(self) -> Table:
        """Drop the columns in which no row says anything."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return Table(tuple(self.columns[i] for i in kept), rows, self.numbers, self.caption)


def as_text(lines: list[Line], *tables: Table | None) -> str:
    """Render for a terminal. Our own characters are ASCII; names of the user keep theirs, but no control codes."""
    told = [clean(line.text) for line in lines]
    return "\n".join(told + [row for table in tables if table is not None and table.rows for row in _text_rows(table)])


def as_html(lines: list[Line], *tables: Table | None) -> str:
    """Render for a notebook; every text is escaped."""
    told = "".join(_html_line(line) for line in lines)
    shown = "".join(_html_table(table) for table in tables if table is not None and table.rows)
    return f'<div class="ipyrescue" style="{_FONT};line-height:1.5">{told}{shown}</div>'


def _html_line(line: Line) -> str:
    return f'<div style="{_STYLES[line.level]}">{_escaped(line.text)}</div>'


def _escaped(text: str) -> str:
    return html.escape(clean(text), quote=True)


def _text_rows(table: Table) -> list[str]:
    cells = [table.columns, *(tuple(clean(cell) for cell in row) for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    caption = [clean(table.caption)] if table.caption else []
    return caption + ["  ".join(_padded(table, row, widths)).rstrip() for row in cells]


def _padded(table: Table, row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [
        cell.rjust(width) if column in table.numbers else cell.ljust(width)
        for column, cell, width in zip(table.columns, row, widths, strict=True)
    ]


def _html_table(table: Table) -> str:
    head = "".join(_html_cell("th", table, column, column) for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(_html_cell("td", table, *pair) for pair in zip(table.columns, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    style = "border-collapse:collapse;margin:.4em 0;border:none;color:inherit;font:inherit"
    caption = _html_line(Line(table.caption)) if table.caption else ""
    return f'{caption}<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _html_cell(tag: str, table: Table, column: str, text: str) -> str:
    align = "right" if column in table.numbers else "left"
    weight = ";font-weight:600" if tag == "th" else ";font-variant-numeric:tabular-nums"
    style = f"text-align:{align};padding:.15em .8em .15em 0;border:none;border-bottom:{_BORDER};background:none{weight}"
    return f'<{tag} style="{style}">{_escaped(text)}</{tag}>'
