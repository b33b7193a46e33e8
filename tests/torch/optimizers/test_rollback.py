"""Putting objects back: every container and small tensor within reach, and nothing beyond."""

from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial

import pytest
import torch

from statedict.torch.optimizers._rollback import LONG, unchanged_on_error


class Thing:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def fail(act, *roots, **options):
    def failing():
        act()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), unchanged_on_error(*roots, **options):
        failing()


@pytest.mark.parametrize(
    ("container", "spoil"),
    [
        ({"a": 1, "b": 2}, lambda c: (c.pop("a"), c.update(z=3))),
        (OrderedDict(a=1, b=2), lambda c: c.move_to_end("a")),
        (defaultdict(list, a=[1]), lambda c: c["b"].append(1)),
        (Counter("aab"), lambda c: c.update("z")),
        ([1, 2], lambda c: c.reverse()),
        (deque([1, 2], maxlen=2), lambda c: c.append(3)),
        ({1, 2}, lambda c: c.add(3)),
    ],
)
def test_containers_get_their_contents_back(container, spoil):
    """Each kind of container is itself again: same object, same contents, same order."""
    root = Thing(deep=({"x": [container]},))
    before, order = repr(container), list(container)
    fail(lambda: spoil(container), root)
    assert (before, order) == (repr(container), list(container))
    assert root.deep[0]["x"][0] is container


def test_attributes_of_objects_within_reach():
    """Attributes that were set, changed or deleted are as before, also of objects in objects, and cycles end."""
    inner = Thing(a=1)
    root = Thing(inner=[inner], b=2)
    inner.back = root

    def spoil():
        inner.a, inner.new = 5, 6
        del root.b

    fail(spoil, root)
    assert vars(inner) == {"a": 1, "back": root}
    assert list(vars(root)) == ["inner", "b"]


def test_tensors():
    """Small tensors are put back bit for bit, large ones where they are named; an optimizer's are not copied."""
    small, large, held = torch.ones(3), torch.ones(100_000), torch.ones(3)
    root = Thing(small=small, large=large, optimizer=torch.optim.SGD([held], lr=0.1))
    root.optimizer.state[held]["momentum_buffer"] = momentum = torch.ones(3)

    def spoil():
        for tensor in (small, large, momentum):
            tensor.fill_(5)
        root.optimizer.param_groups[0]["lr"] = 5

    fail(spoil, root)
    assert [tensor[0].item() for tensor in (small, large, momentum)] == [1.0, 5.0, 5.0]
    assert root.optimizer.param_groups[0]["lr"] == 0.1
    large.fill_(1)
    momentum.fill_(1)
    fail(spoil, root, tensors=[large, momentum])
    assert [tensor[0].item() for tensor in (small, large, momentum)] == [1.0, 1.0, 1.0]


def test_long_containers_are_put_back_without_looking_inside():
    """A container of more entries than settings have gets its contents back, but what is in it is not searched."""
    item = Thing(a=1)
    data = [item] * (LONG + 1)

    def spoil():
        data.clear()
        item.a = 2

    fail(spoil, Thing(data=data))
    assert (len(data), item.a) == (LONG + 1, 2)


def test_nothing_happens_without_an_error():
    """Without an exception all changes stay."""
    root = Thing(a=[1])
    with unchanged_on_error(root):
        root.a.append(2)
    assert root.a == [1, 2]


def test_functions_and_classes_are_not_entered():
    """Functions, classes and modules in attributes are shared by the whole process, and left alone."""
    root = Thing(function=fail, kind=Thing, module=torch, partial=partial(fail))
    fail(lambda: setattr(Thing, "marked", True), root)
    assert Thing.marked
    del Thing.marked
