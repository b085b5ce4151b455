"""Reading tables of the pages."""


def cells(line: str) -> list[str]:
    """Return the cells of a Markdown table's line."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows(text: str) -> list[list[str]]:
    """Return the cells of each line of the Markdown table that ``text`` begins with, its header apart."""
    return [cells(line) for line in text.split("\n\n")[0].splitlines()[2:]]
