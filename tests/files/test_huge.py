"""Whether memory lies in huge pages is seen from three bytes of it."""

import mmap

import pytest

from statedict.files._huge import LEAST, in_huge_pages

ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


@pytest.fixture
def memory():
    """Memory of which nothing has been touched, and that the system gives page by page."""
    mapped = mmap.mmap(-1, LEAST, flags=ANONYMOUS)
    mapped.madvise(mmap.MADV_NOHUGEPAGE)
    return mapped


def test_memory_that_comes_page_by_page_does_not(memory):
    """One byte brings its page, and not what lies a megabyte further."""
    assert not in_huge_pages(memoryview(memory))


def test_memory_that_is_all_there_does(memory):
    """Where all pages are there nothing is to be brought."""
    for start in range(0, LEAST, mmap.PAGESIZE):
        memory[start] = 1
    assert in_huge_pages(memoryview(memory))


def test_little_memory_is_not_looked_at(memory):
    """What is small is not worth the question."""
    assert not in_huge_pages(memoryview(memory)[: LEAST - 1])


def test_a_system_that_does_not_say(memory, monkeypatch):
    """Where the system has no table of pages the answer is no."""

    def refused(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refused)
    assert not in_huge_pages(memoryview(memory))
