"""Tables that scripts write into the README, between the marks ``<!-- name -->`` and ``<!-- end -->``."""

from pathlib import Path

from android_bench.store import write_file

README = Path(__file__).resolve().parent.parent / "README.md"


def into_readme(name: str, text: str) -> None:
    """Put ``text``, the table called ``name``, there."""
    before, mark, rest = README.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not (mark and end):
        raise ValueError(f"{README} has no lines <!-- {name} --> and <!-- end --> to put the table between.")
    write_file(README, (before + mark + "\n" + text + "\n" + end + after).encode())
