"""The page of results, `docs/benchmarks/disturbed.md`: each command writes its own part and keeps the others."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks" / "disturbed.md"


def with_part(page: str, name: str, text: str) -> str:
    """Returns the page with the text between the two markers of this part. Raises ValueError if they are not there."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"no markers of {name!r} on the page")
    return pattern.sub(lambda found: f"{found[1]}{text.strip()}\n{found[2]}", page)


def write(name: str, text: str) -> None:
    PAGE.write_text(with_part(PAGE.read_text(), name, text))
