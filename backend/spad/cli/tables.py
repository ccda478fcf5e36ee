"""Plain tables for standard output."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] | None = None
) -> str:
    """Lay out a table.

    Args:
        header: names of the columns.
        rows: one cell per column.
        right: columns whose cells stand to the right; None: all but the first.
    """
    lines = [list(header), *map(list, rows)]
    columns = range(len(header))
    widths = [max(len(line[column]) for line in lines) for column in columns]
    right = columns[1:] if right is None else right

    def cell(line: list[str], column: int) -> str:
        width = widths[column]
        return line[column].rjust(width) if column in right else line[column].ljust(width)

    texts = ["  ".join(cell(line, column) for column in columns).rstrip() for line in lines]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([texts[0], rule, *texts[1:]])


def pairs(items: Sequence[tuple[str, str]]) -> str:
    """Lay out names and their values, one pair a line."""
    width = max((len(name) for name, _ in items), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in items)


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where it is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"
