"""Use the library from several threads at once, again and again: most useful on Python without the GIL.

    python -m tests.threads --seconds 300

A round of a scenario runs its functions at the same moment, each in a thread, and then checks what they did. One round of
each is in the ordinary suite (tests/test_threads.py). Exit code 1, and the traceback, if a round fails.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np

import statedict
from statedict import CheckpointManager, StateDict, nn
from statedict.files._open import LocalFile
from statedict.training import all_steps
from statedict.training.saving._background import Background

THREADS = 4
Scenario = Callable[[Path], None]


def together(*functions: Callable[[], object]) -> list[object]:
    """Call the functions at the same moment, each in a thread; return what they returned, raise what one of them raised."""
    start = threading.Barrier(len(functions))
    found: list[object] = [None] * len(functions)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            start.wait()
            found[index] = functions[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def state_of(mark: float, tensors: int = 40) -> dict[str, np.ndarray]:
    """Return arrays of several sizes and dtypes with `mark` in all of them; the last two are one array."""
    dtypes = ("float32", "float64", "int64", "float16")
    state = {f"layer.{i}.weight": np.full((i % 7 + 1, 33), mark, dtypes[i % len(dtypes)]) for i in range(tensors)}
    return state | {"large": np.full(300_000, mark, "float32"), "tied": state["layer.0.weight"]}


def has_mark(state: StateDict | dict[str, np.ndarray], mark: float) -> bool:
    """Whether a state is `state_of(mark)`."""
    expected = state_of(mark)
    return list(state) == list(expected) and all(np.array_equal(state[name], expected[name]) for name in expected)


def one_lazy_state(tmp: Path) -> None:
    """Threads that read a lazy state in any order get one array for each name, and ties are kept."""
    for path in (tmp / "a.pt", tmp / "a.safetensors", tmp / "a.npz"):
        statedict.save(state_of(3), path)
        with statedict.open(path) as checkpoint:
            state = checkpoint.state_dict()
            names = list(state)

            def read(order: list[str], state: StateDict = state) -> dict[str, np.ndarray]:
                return {name: state[name] for name in order}

            orders = [random.sample(names, len(names)) for _ in range(THREADS)]
            found = together(*(lambda order=order: read(order) for order in orders), state.fingerprint)
            assert all(each[name] is state[name] for each in found[:-1] for name in names)
            assert has_mark(state, 3)
            assert path.suffix != ".pt" or np.shares_memory(state["tied"], state["layer.0.weight"])


def one_checkpoint(tmp: Path) -> None:
    """Threads read, verify, select and save from one open checkpoint."""
    statedict.save(state_of(2), tmp / "a.pt")
    with statedict.open(tmp / "a.pt") as checkpoint:
        state = checkpoint.state_dict()
        together(
            lambda: statedict.save(state, tmp / "b.safetensors"),
            lambda: statedict.save(state.select("layer.*"), tmp / "c.pt"),
            lambda: statedict.snapshot(state),
            lambda: state.to("float16").fingerprint(),
            lambda: state.tied,
        )
    assert has_mark(statedict.load(tmp / "b.safetensors", backend="numpy"), 2)
    assert len(statedict.load(tmp / "c.pt", backend="numpy")) == 40


def one_path(tmp: Path) -> None:
    """While threads save to one path, others load one of these states, whole."""
    path = tmp / "a.pt"
    statedict.save(state_of(0), path, durable=False)

    def load() -> None:
        for _ in range(3):
            state = statedict.load(path, backend="numpy")
            assert has_mark(state, state["large"][0])

    def save(mark: int) -> None:
        for _ in range(3):
            statedict.save(state_of(mark), path, durable=False)

    together(load, load, *(lambda mark=mark: save(mark) for mark in range(1, 3)))
    assert [file.name for file in tmp.iterdir()] == ["a.pt"]


def closing(tmp: Path) -> None:
    """Of several threads that close a file, one does: a second close could close another file with the same number."""
    (tmp / "a").write_bytes(b"a")
    files = [LocalFile(tmp / "a") for _ in range(500)]

    def close() -> None:
        for file in files:
            file.close()

    together(close, close, close)


def edited_state(tmp: Path) -> None:
    """Reading a state that another thread edits gives the old value or the new one, or KeyError for a deleted name."""
    statedict.save(state_of(1), tmp / "a.pt")
    with statedict.open(tmp / "a.pt") as checkpoint:
        state = checkpoint.state_dict()
        names = list(state)

        def read() -> None:
            for name in names:
                try:
                    assert float(np.ravel(state[name])[0]) in (1, 5)
                except KeyError:
                    assert name in names[::2]

        def edit() -> None:
            for name in names[::2]:
                del state[name]
            for name in names[1::2]:
                state[name] = np.full(1, 5.0)

        together(read, read, read, edit)


def modules(tmp: Path) -> None:
    """Threads make, run, copy, save and load modules of their own, and read one that is shared."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).eval()

    shared = make()
    x = np.ones((2, 16), "float32")

    def work(number: int) -> None:
        model = make()
        hook = model.register_forward_hook(lambda module, args, output: output)
        statedict.load_state_dict(model, statedict.snapshot(shared))
        assert np.array_equal(np.asarray(model(x)), np.asarray(shared(x)))
        hook.remove()
        path = tmp / f"{number}.safetensors"
        statedict.save(model, path, durable=False)
        assert not statedict.diff(path, shared)
        statedict.load_state_dict(make(), path)

    together(*(lambda number=number: work(number) for number in range(THREADS)))


def plans(tmp: Path) -> None:
    """Renaming, matching, merging and comparing give every thread the same."""
    a, b = StateDict(state_of(1)), StateDict(state_of(3))
    model = {f"body.{name.removeprefix('layer.')}": value for name, value in state_of(2).items()}

    def work() -> str:
        rules = statedict.match(model, a)
        merged = statedict.merge([a, b], "average")
        renamed = a.rename("layer.{n}.weight -> body.{n}.w")
        return f"{rules}{merged.fingerprint()}{renamed.fingerprint()}{statedict.diff(a, b)}"

    assert len(set(together(*[work] * THREADS))) == 1


def managers(tmp: Path) -> None:
    """Threads save, prune and resume through one manager, in the background too; every save is there."""
    for options in ({}, {"asynchronous": True}):
        with CheckpointManager(
            tmp / str(len(options)), keep=all_steps(), random=False, durable=False, **options
        ) as manager:

            def work(number: int, manager: CheckpointManager = manager) -> None:
                for turn in range(2):
                    step = THREADS * turn + number
                    manager.save(step, model=state_of(step))
                    manager.prune()
                    assert manager.latest is not None

            together(*(lambda number=number: work(number) for number in range(THREADS)))
            manager.wait()
            assert sorted(manager) == list(range(2 * THREADS))
            for step in manager:
                assert has_mark(statedict.load(manager[step].path, backend="numpy")["model"], step)


def failing_saves(tmp: Path) -> None:
    """The error of every failed save is raised once, though several threads ask for it."""
    background, times, ended = Background(), 50, threading.Event()

    def fail() -> None:
        raise OSError

    def submit() -> None:
        for _ in range(times):
            background.submit(fail, dropped=fail)
            background.settle()
            while background._error is not None:
                time.sleep(0)
        ended.set()

    def ask() -> int:
        raised = 0
        while not ended.is_set():
            try:
                background.raise_error()
            except OSError:
                raised += 1
        return raised

    assert sum(filter(None, together(submit, ask, ask))) == times


def new_managers(tmp: Path) -> None:
    """A manager takes over a run while other threads make managers."""
    ended = threading.Event()

    def make() -> None:
        while not ended.is_set():
            for number in range(20):
                CheckpointManager(tmp / f"other{number}", random=False)

    def take_over() -> None:
        try:
            for step in range(5):
                CheckpointManager(tmp / "run", random=False, durable=False).save(step, model={})
        finally:
            ended.set()

    together(take_over, make, make)


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (one_lazy_state, one_checkpoint, one_path, edited_state, modules, plans)
    + (managers, new_managers, failing_saves, closing)
}


@contextmanager
def many_switches() -> Iterator[None]:
    """With a GIL, let the interpreter change threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; all, if none is named")
    options = parser.parse_args()
    chosen = options.scenarios or list(SCENARIOS)
    end = time.monotonic() + options.seconds
    failed = dict.fromkeys(chosen, 0)
    for rounds in count(1):
        for name in chosen:
            with tempfile.TemporaryDirectory() as tmp, many_switches():
                try:
                    SCENARIOS[name](Path(tmp))
                except Exception:
                    failed[name] += 1
                    print(f"{name}, round {rounds}", traceback.format_exc(), sep="\n", flush=True)
        if time.monotonic() > end:
            break
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"{rounds} rounds {'with' if gil else 'without'} the GIL; failures: {failed}")
    return int(any(failed.values()))


if __name__ == "__main__":
    sys.exit(main())
