"""ResumableLoader: the position in a pass over the data is saved and resumed."""

import pytest
import torch
from torch.utils.data import DataLoader

from statedict.integrations import ResumableLoader


def drawn(loader, number):
    return [batch.tolist() for batch, _ in zip(loader, range(number))]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("own", [False, True])
def test_rest_of_a_pass(workers, own):
    """The rest of a pass has the same batches in the same order, from the global generator or the loader's own."""

    def make(seed):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed) if own else None
        loader = DataLoader(torch.arange(20), 3, shuffle=True, num_workers=workers, generator=generator)
        return ResumableLoader(loader)

    loader = make(0)
    passes = drawn(loader, 9), drawn(loader, 9)
    loader = make(0)
    list(loader)
    taken = iter(loader)
    for _ in range(4):
        next(taken)
    state, generator = loader.state_dict(), torch.get_rng_state()
    other = make(1)
    other.load_state_dict(state)
    torch.set_rng_state(generator)
    assert drawn(other, 9) == passes[1][4:]


def test_between_two_passes():
    """Between two passes the next one is complete, and drawn as it would have been."""
    loader = ResumableLoader(DataLoader(torch.arange(8), 2, shuffle=True, generator=torch.Generator().manual_seed(0)))
    list(loader)
    state = loader.state_dict()
    expected = drawn(loader, 9)
    other = ResumableLoader(DataLoader(torch.arange(8), 2, shuffle=True, generator=torch.Generator().manual_seed(1)))
    other.load_state_dict(state)
    assert drawn(other, 9) == expected
    assert len(expected) == len(other) == 4


def test_loading_changes_the_state_only():
    """A position that has been loaded is the one that is saved, also before the pass goes on."""
    loader = ResumableLoader(range(5))
    next(iter(loader))
    other = ResumableLoader(range(5))
    other.load_state_dict(loader.state_dict())
    assert other.state_dict()["rank 0 of 1"]["taken"] == 1


def test_fewer_batches():
    """A loader with fewer batches than had been taken is an error that says so."""
    loader = ResumableLoader(range(5))
    drawn(ResumableLoader(torch.arange(3)), 1)
    taken = iter(loader)
    for _ in range(4):
        next(taken)
    short = ResumableLoader(range(3))
    short.load_state_dict(loader.state_dict())
    with pytest.raises(ValueError, match="saved after 4 batches of a pass over the data, but the loader has only 3"):
        list(short)


def test_other_number_of_ranks():
    """The positions of two ranks are not those of one."""
    (position,) = ResumableLoader(range(5)).state_dict().values()
    with pytest.raises(ValueError, match=r"saved by other processes \(rank 0 of 2, rank 1 of 2\), .* is rank 0 of 1"):
        ResumableLoader(range(5)).load_state_dict({"rank 0 of 2": position, "rank 1 of 2": position})


def test_attributes_are_those_of_the_loader():
    """Everything else about the loader is read and set on it."""
    loader = DataLoader(torch.arange(6), 2)
    wrapped = ResumableLoader(loader)
    wrapped.worker_init_fn = print
    assert (wrapped.batch_size, loader.worker_init_fn) == (2, print)
