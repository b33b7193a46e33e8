"""The reference names everything that is public."""

import re
from pathlib import Path

import statedict

DOCS = Path(__file__).parents[1] / "docs"


def test_every_public_name_is_in_the_reference():
    """docs/reference/python.md has every name of `statedict.__all__`, but for the rooms with pages of their own."""
    text = (DOCS / "reference" / "python.md").read_text()
    told = set(re.findall(r"^::: \S+\.(\w+)$", text, re.MULTILINE))
    errors = {name for name in statedict.__all__ if name.endswith("Error")}
    assert set(statedict.__all__) - told - errors - {"nn", "torch"} == set()


def test_every_page_is_in_the_navigation():
    """No page is forgotten by mkdocs.yml."""
    listed = set(re.findall(r"(\S+\.md)", (DOCS.parent / "mkdocs.yml").read_text()))
    assert {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} == listed
