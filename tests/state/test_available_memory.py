"""Whether there is memory for a backup: limited by the system, the process and control groups of both versions."""

import subprocess
import sys

import pytest

from statedict.state import _process, have_room, not_put_back

GB = 1 << 30


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system with 8 GB available, and this process in the group `/a/b`."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 16777216 kB\nMemAvailable: {8 * GB >> 10} kB\n")
    (tmp_path / "cgroup").write_text("4:memory:/a/b\n0::/a/b\n")
    monkeypatch.setattr(_process, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(_process, "GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(_process, "LIMITS", tmp_path / "limits")
    monkeypatch.setattr(_process, "STATUS", tmp_path / "status")
    versions = [(tmp_path / number, *names) for number, (_, *names) in zip("21", _process.VERSIONS)]
    monkeypatch.setattr(_process, "VERSIONS", versions)
    return tmp_path


def test_half_of_what_is_available(system, monkeypatch):
    """Half of it may be taken, and a little always."""
    assert have_room(4 * GB)
    assert not have_room(4 * GB + 1)
    (system / "meminfo").unlink()
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert have_room(_process.FLOOR)
    assert not have_room(_process.FLOOR + 1)


def test_other_systems_are_asked_through_psutil(system):
    """Where there is no `/proc/meminfo`, psutil says how much memory is available."""
    psutil = pytest.importorskip("psutil")
    (system / "meminfo").unlink()
    assert have_room(psutil.virtual_memory().available // 4)
    assert not have_room(psutil.virtual_memory().total)


@pytest.mark.parametrize(("limit", "used"), _process.OWN)
def test_limits_of_the_process(system, monkeypatch, limit, used):
    """What `ulimit` allows to this process, without what it has allocated."""
    (system / "status").write_text(f"VmPeak: 99 kB\n{used}\t{GB >> 10} kB\n")
    (system / "limits").write_text(f"{limit:25} {3 * GB:<20} unlimited bytes\n")
    assert have_room(GB)
    assert not have_room(GB + 1)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("group", ["a/b", "a", ""])
def test_limits_of_groups(system, version, group):
    """The tightest limit of the group and of those around it applies; cached files count as available."""
    root, limit, used, cached = _process.VERSIONS[version]
    (root / group).mkdir(parents=True)
    (root / group / limit).write_text(f"{3 * GB}\n")
    (root / group / used).write_text(f"{2 * GB}\n")
    (root / group / "memory.stat").write_text(f"anon 5\n{cached} {GB}\n")
    assert have_room(GB)
    assert not have_room(GB + 1)


@pytest.mark.parametrize("text", ["max", "9223372036854771712"])
def test_groups_without_a_limit(system, text):
    """The word `max`, or the largest number, means no limit."""
    for root, limit, *_ in _process.VERSIONS:
        root.mkdir()
        (root / limit).write_text(text)
    assert have_room(4 * GB)


def test_a_limit_of_this_process():
    """What the system says about this process is understood, with a limit and without one."""
    code = (
        "import resource; from statedict.state import have_room; print(have_room(64 << 20), end=' '); "
        "resource.setrlimit(resource.RLIMIT_AS, (100 << 20,) * 2); print(have_room(64 << 20))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]


def test_many_names_are_counted():
    """A note names the first tensors that changed, and how many there are."""
    assert "21 of its tensors have changed (0, 1, 2" in not_put_back([str(n) for n in range(21)])
    assert "19 and 1 more). All others" in not_put_back([str(n) for n in range(21)])
