"""The statements, a file each, and their loader.

Each file begins with who calls it, its parameters with units, what it returns, what it locks, which index serves it
and why it has its shape. A placeholder in braces is a literal that the planner must see, filled with a number from a
short list so that few plans exist: a LIMIT given as a parameter made Postgres plan a 2 ms claim into 65 ms. A file's
name in braces is that file's text, less its header: what two statements must decide alike stands once.
"""

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def load(name: str, **literals: int) -> str:
    """The text of `<name>.sql` with its {literals} filled in; they are integers, so nothing can be injected."""
    text = _including(name)
    for key, value in literals.items():
        text = text.replace("{" + key + "}", str(int(value)))
    return text


def _including(name: str) -> str:
    text = (FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\.sql\}", lambda found: re.sub(r"(?m)\A(--.*\n)+|\n\Z", "", _including(found[1])), text)
