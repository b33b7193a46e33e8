"""The page as a file: whole, small, the same for the same content, and closed to what comes out of a checkpoint."""

import gzip
import json
import re
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser
from importlib.resources import files as resources

import numpy as np
import pytest

from statedict.errors import MissingDependencyError
from statedict.report import MARK, FileContent, charting, page, survey
from statedict.report._page import SCRIPTS
from statedict.state import StateDict

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Seen(HTMLParser):
    """Every tag of a page with its attributes, and the text of every script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag == "script"

    def handle_data(self, data):
        if self.inside:
            self.scripts.append((self.tags[-1][1], data))
        self.inside = False


@pytest.fixture(scope="module")
def hostile():
    state = StateDict({f"{HOSTILE}.weight": np.ones((2, 2)), "$style ${script}": np.ones(1)})
    made = FileContent(f"{HOSTILE}.pt", "torch", HOSTILE, 1, {HOSTILE: survey(state)}, notes=[HOSTILE])
    return page([made])


def unpacked(seen, name):
    (text,) = (text for attributes, text in seen.scripts if attributes.get("id") == name)
    return gzip.decompress(b64decode(text, validate=True))


def test_nothing_of_a_file_is_markup(hostile):
    """Hostile names add no tag to the page: its tags are those of a page about nothing."""
    plain = Seen(page([FileContent("x", "torch", "unknown", 0, {})]).decode())
    seen = Seen(hostile.decode())
    assert seen.tags == plain.tags
    assert hostile.count(b"onerror") == 1  # in the title, escaped
    assert b"<title>&lt;/script&gt;&lt;img" in hostile
    assert json.loads(unpacked(seen, "content-data"))["names"] == [f"{HOSTILE}.weight", "$style ${script}"]


def test_the_policy_allows_our_two_scripts_and_no_connection(hostile):
    """The page's policy denies everything but the scripts whose hash it names: the page's own, and the library's."""
    seen = Seen(hostile.decode())
    (policy,) = (a["content"] for t, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data: blob:"  # the second: a chart that is saved as PNG
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    (own,) = (text for attributes, text in seen.scripts if attributes.get("type") == "module")
    library = unpacked(seen, "charting-data")
    hashes = [f"'sha256-{b64encode(sha256(script).digest()).decode()}'" for script in (own.encode(), library)]
    assert rules["script-src"].split() == hashes
    assert library.decode() == charting()


def test_nothing_outside_is_named(hostile):
    """No tag of the page names another file or address."""
    assert all(not {"src", "href", "action"} & set(attributes) for _, attributes in Seen(hostile.decode()).tags)
    assert b"@import" not in hostile
    assert not re.search(rb"url\(", hostile)


def test_the_same_content_is_the_same_page(hostile):
    """A page has no time and no random number in it, and begins with its mark."""
    state = StateDict({f"{HOSTILE}.weight": np.ones((2, 2)), "$style ${script}": np.ones(1)})
    again = page([FileContent(f"{HOSTILE}.pt", "torch", HOSTILE, 1, {HOSTILE: survey(state)}, notes=[HOSTILE])])
    assert again == hostile
    assert hostile.startswith(MARK)


def test_ten_thousand_tensors_are_some_megabytes():
    """The page of a checkpoint of 10,000 tensors, half of them matrices, stays below 7 MB."""
    rng = np.random.default_rng(0)
    kinds = {"q": (32, 32), "n": (32,)}
    state = {f"layers.{i}.{k}.weight": rng.normal(size=kinds[k]).astype("f4") for i in range(5_000) for k in kinds}
    made = page([FileContent("x", "torch", "unknown", 0, {"": survey(StateDict(state))})])
    assert len(made) < 7_000_000


def test_without_the_library(monkeypatch):
    """Where plotly is not installed, the error says what to install."""
    charting.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'statedict\[view\]'"):
        page([FileContent("x", "torch", "unknown", 0, {})])


def test_every_file_of_the_page_is_used():
    """The room's page files are the scripts, the style and the page that it is made of."""
    names = {found.name for found in (resources("statedict.report") / "page").iterdir()}
    assert names == {*SCRIPTS, "page.html", "page.css"}
