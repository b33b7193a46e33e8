"""Distributions with plugins, made in a temporary directory that is put on the path."""

import sys

import pytest


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one module and one entry point, as far as `importlib.metadata` is concerned."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    installed = []

    def install(name, code, *, attribute="FORMAT"):
        module = f"plugin_{name}"
        (site / f"{module}.py").write_text(code)
        info = site / f"statedict_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: statedict-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[statedict.formats]\n{name} = {module}:{attribute}\n")
        installed.append(module)

    yield install
    for module in installed:
        sys.modules.pop(module, None)
