"""What tests share: the builders of tests/hostile as `tests.hostile`, and published packages with real weights."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.addoption("--system", choices=["windows", "macos"], help="run the library on a simulated system")
    # Installed here, because pytest imports the conftest.py of the folders to be tested next, and some import statedict.
    config = pluginmanager.get_plugin("pytestconfig")
    if name := parser.parse_known_args(config.invocation_params.args).system:
        from tests.systems import install

        install(name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what only other systems have: `@pytest.mark.only_on("linux", "macos")`."""
    system = item.config.getoption("--system") or "linux"
    for mark in item.iter_markers("only_on"):
        if system not in mark.args:
            pytest.skip(f"only on {' and '.join(mark.args)}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep examples that should be the same in each run independent of what a worker has imported before: Hypothesis draws
    constants from the source of imported modules.
    """
    if settings().derandomize:
        with suppress(ImportError):  # older versions do not
            from hypothesis.internal.conjecture import providers

            providers.is_local_module_file = lambda path: False


@pytest.fixture
def environment() -> Iterator[None]:
    """Restore the environment variables: some frameworks set them for the whole process when they are imported."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


# Examples are the same in each run, so that none fails by chance; `make explore` (`--hypothesis-profile explore`) draws new
# ones. How long an example takes depends on what else the machine does, so it is not judged.
settings.register_profile(
    "explore", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.register_profile("statedict", settings.get_profile("explore"), derandomize=True)
settings.load_profile("statedict")

PACKAGES = ROOT / ".cache" / "packages"
# Most of the suite runs without these; tests that import them are skipped where they are not installed.
OPTIONAL = {
    "torch",
    "transformers",
    "accelerate",
    "diffusers",
    "lightning",
    "skorch",
    "gguf",
    "jax",
    "sklearn",
    "s3fs",
    "moto",
    "safetensors",
}


class OptionalModule(pytest.Module):
    """A file of tests, which is skipped if it imports an optional package that is not installed."""

    def _getobj(self) -> ModuleType:
        try:
            return super()._getobj()
        except self.CollectError as error:
            from statedict.errors import MissingDependencyError  # not before `--system`

            cause = error.__cause__
            if isinstance(cause, MissingDependencyError):
                cause = cause.__cause__
            missing = getattr(cause, "name", None) or ""
            if isinstance(cause, ModuleNotFoundError) and missing.partition(".")[0] in OPTIONAL:
                pytest.skip(f"needs the package {missing}", allow_module_level=True)
            raise


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return OptionalModule.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def package() -> Callable[[str], Path]:
    """A function that gives the folder of a published package's files, by requirement (`"lpips==0.1.4"`).

    Its wheel is fetched once and kept in `.cache`; nothing of it is installed. The test is skipped where it cannot be
    fetched.
    """
    return cache(_package)


def _package(requirement: str) -> Path:
    folder = PACKAGES / requirement.replace("==", "-")
    PACKAGES.mkdir(parents=True, exist_ok=True)
    with (PACKAGES / f".{folder.name}.lock").open("w") as lock:
        # Test processes beside this one may want the same package.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(requirement, folder)
    return folder


def _fetch(requirement: str, folder: Path) -> None:
    wheels = PACKAGES / f"{folder.name}.wheel"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"]
    try:
        done = subprocess.run([*command, str(wheels), requirement], capture_output=True, text=True, timeout=280)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{requirement} could not be fetched in time from a package registry")
    found = list(wheels.glob("*.whl"))
    if done.returncode or not found:
        reason = done.stderr.strip().splitlines() or ["no wheel"]
        pytest.skip(f"{requirement} cannot be fetched from a package registry here: {reason[-1]}")
    unpacked = folder.with_suffix(".unpacking")
    with zipfile.ZipFile(found[0]) as wheel:
        wheel.extractall(unpacked)
    unpacked.rename(folder)


@pytest.fixture(scope="session")
def s3_server():
    """An S3 server on this machine."""
    import logging

    from tests.s3 import Server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The server, empty but for the bucket `s3://bucket`, and the variables by which clients find it."""
    s3_server.reset()
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return s3_server
