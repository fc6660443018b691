"""Tables in Markdown, and numbers with their units as people write them."""

from __future__ import annotations

from collections.abc import Sequence

PREFIXES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose columns are aligned; all but the first `left` are to the right."""
    head, rows = escape(head), [escape(row) for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def escape(cells: Sequence[str]) -> list[str]:
    """The cells, without what would end one."""
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]


def format_value(value: float | None, unit: str) -> str:
    """The number with three figures and its unit; a dash for None."""
    if value is None:
        return "–"
    if unit == "s":
        size, name = next((pair for pair in PREFIXES if abs(value) >= pair[0]), PREFIXES[-1])
        return f"{figures(value / size)} {name}"
    return f"{figures(value)} {unit}".rstrip()


def figures(value: float) -> str:
    """Three figures, or all before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
