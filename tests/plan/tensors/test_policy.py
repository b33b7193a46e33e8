"""Policies: how tensors of another shape are adapted on request; PyTorch's interpolation is the oracle."""

from typing import get_args

import numpy as np
import pytest

from statedict.plan import POLICIES, interpolate, match
from statedict.plan.tensors._policy import PolicyName

RNG = np.random.default_rng(7)


def run(policy, source, target, name="pos_embed"):
    """The array that a policy gives for one slot, and what the report says about it."""
    plan = match({name: source}, {name: target}, mismatched=policy)
    assert not plan.mismatched, plan.mismatched
    return plan.execute(plan.given).numpy()[name], plan.report()


def refused(policy, source, target, name="pos_embed"):
    """Why a policy does not help."""
    (one,) = match({name: source}, {name: target}, mismatched=policy).mismatched
    return one.note


def test_nothing_is_adapted_unless_asked():
    """The default is an error, and an unknown policy is refused."""
    assert match({"a": np.ones(2)}, {"a": np.ones(3)}).mismatched
    assert match({"a": np.ones(2)}, {"a": np.ones(3)}, mismatched={"b": "slice"}).mismatched
    with pytest.raises(ValueError, match="mismatched='shrink' is not a policy; use one of 'error', 'skip', 'slice'"):
        match({}, {}, mismatched="shrink")


def test_type_checkers_know_every_policy():
    """The type of `mismatched=` lists the names of all policies."""
    assert list(get_args(PolicyName)) == list(POLICIES)


def test_skip():
    """A skipped slot gets nothing, and is neither missing nor mismatched."""
    plan = match(
        {"head.w": np.ones((5, 2)), "w": np.ones(1)}, {"head.w": np.ones((9, 2)), "w": np.ones(1)}, mismatched="skip"
    )
    assert list(plan.execute(plan.given)) == ["w"]
    assert plan.ok
    assert [tuple(one)[:3] for one in plan.skipped] == [("head.w", (5, 2), (9, 2))]
    assert plan.withheld == {"head.w"}
    assert "1 skipped" in str(plan.report())


@pytest.mark.parametrize(("old", "new"), [((5, 4), (8, 4)), ((8, 4), (5, 4)), ((8, 3), (5, 4)), ((3,), (5,))])
def test_slice(old, new):
    """The common part is loaded, and the rest keeps the model's values."""
    source, target = RNG.normal(size=old).astype("f4"), RNG.normal(size=new)
    result, report = run("slice", source, target)
    corner = tuple(slice(0, min(pair)) for pair in zip(old, new))
    expected = target.copy()
    expected[corner] = source[corner]
    assert np.array_equal(result, expected)
    assert report.ok
    assert str(list(map(min, old, new))) in report.adapted[0].how


def test_slice_needs_the_models_values_only_where_it_keeps_some():
    """A tensor that is only cut fills a slot without values; one that is too small says why it cannot."""

    class Meta:
        shape, dtype, is_meta = (4,), "float32", True

    assert run("slice", np.arange(6, dtype="f4"), Meta())[0].tolist() == [0, 1, 2, 3]
    assert "this tensor is on the meta device" in refused("slice", np.arange(2, dtype="f4"), Meta())


def test_a_slot_of_an_unknown_library():
    """A slot whose values cannot be read is noticed before anything is loaded."""

    class Foreign:
        shape, dtype = (4,), "float32"

    plan = match({"a": np.ones(2, "f4")}, {"a": Foreign()}, mismatched="slice")
    with pytest.raises(TypeError, match="the model's own tensor is no longer strided"):
        plan.execute(plan.given)


def test_a_function():
    """A function gets both arrays and returns one of the slot's shape."""
    result, report = run(lambda new, old: np.full(old.shape, new.sum()), np.ones(3, "f4"), np.zeros((2, 2)))
    assert result.tolist() == [[3, 3], [3, 3]]
    assert "made by <lambda>" in report.adapted[0].how
    with pytest.raises(ValueError, match="has shape"):
        run(lambda new, old: new, np.ones(3, "f4"), np.zeros(2))


# first convolutions


def test_channels_by_hand():
    """RGB weights fit gray and RGBA images as timm makes them fit: summed, or repeated and rescaled."""
    rgb = RNG.normal(size=(6, 3, 5, 5)).astype("f4")
    gray, _ = run("channels", rgb, np.zeros((6, 1, 5, 5), "f4"))
    assert np.allclose(gray, rgb.sum(1, keepdims=True), rtol=1e-6)
    rgba, report = run({"conv": "channels"}, rgb, np.zeros((6, 4, 5, 5), "f4"), "conv.weight")
    assert np.allclose(rgba, rgb[:, [0, 1, 2, 0]] * np.float32(3 / 4), rtol=1e-6)
    assert report.adapted[0].how == "3 input channels repeated to 4 and scaled by 3/4"
    again, _ = run("repeat", gray, np.zeros((6, 3, 5, 5), "f4"))
    assert np.allclose(again.sum(1, keepdims=True), gray, rtol=1e-6)


def test_channels_answer_as_before():
    """A gray image through the summed convolution gives what it gave as three equal channels."""
    torch = pytest.importorskip("torch")
    rgb = torch.randn(4, 3, 3, 3)
    image = torch.randn(1, 1, 8, 8)
    gray, _ = run("sum", rgb.numpy(), np.zeros((4, 1, 3, 3), "f4"))
    now = torch.nn.functional.conv2d(image, torch.from_numpy(gray))
    assert torch.allclose(now, torch.nn.functional.conv2d(image.expand(1, 3, 8, 8), rgb), atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "old", "new", "why"),
    [
        ("channels", (6, 3), (6, 1), "input channels"),
        ("channels", (6, 3, 5, 5), (8, 1, 5, 5), "input channels"),
        ("sum", (6, 3, 5, 5), (6, 2, 5, 5), "'sum' gives one input channel, but the model has 2"),
        ("slice", (3,), (3, 1), "the same number of dimensions"),
        ("interpolate", (3,), (3, 1), "differ in one dimension or two"),
        ("interpolate", (1, 2, 3, 4), (1, 3, 4, 5), "differ in one dimension or two"),
        ("bicubic", (1, 10, 4), (1, 12, 4), "10 → 12 positions do not match the requested grids"),
        ("linear", (1, 2, 3, 4), (1, 3, 4, 4), "'linear' needs shapes that differ in one dimension"),
        (interpolate(prefix=2), (1, 17, 4), (1, 26, 4), "do not match the requested grids"),
    ],
)
def test_what_a_policy_cannot_do_stays_a_mismatch(policy, old, new, why):
    """A policy that does not fit the shapes leaves the mismatch, and says why."""
    assert why in refused(policy, np.zeros(old, "f4"), np.zeros(new, "f4"))


# position embeddings


def resized(torch, grid, size, mode, antialias):
    """PyTorch's own, on `[rows, columns, channels]`."""
    image = torch.from_numpy(grid).permute(2, 0, 1)[None]
    out = torch.nn.functional.interpolate(image, size=size, mode=mode, antialias=antialias, align_corners=False)
    return out[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("old", "new"), [((4, 4), (7, 7)), ((9, 9), (4, 4)), ((3, 5), (6, 4)), ((5, 5), (5, 6))])
def test_grids_as_pytorch(old, new, mode, antialias, dtype):
    """A `[1, tokens, channels]` table is resized as PyTorch resizes an image, its prefix tokens as they were."""
    torch = pytest.importorskip("torch")
    tokens = RNG.normal(size=(1, 2 + old[0] * old[1], 6)).astype(dtype)
    target = np.zeros((1, 2 + new[0] * new[1], 6), dtype)
    policy = interpolate(mode, antialias=antialias, grid=(old, new))
    result, report = run({"pos_embed": policy}, tokens, target)
    expected = resized(torch, tokens[0, 2:].reshape(*old, 6), new, mode, antialias).reshape(-1, 6)
    assert np.array_equal(result[0, :2], tokens[0, :2])
    assert np.allclose(result[0, 2:], expected, atol=1e-5 if dtype == "f4" else 1e-12)
    assert f"{mode} from {old[0]}×{old[1]} to {new[0]}×{new[1]}, 2 prefix tokens kept" == report.adapted[0].how


@pytest.mark.parametrize(
    ("old", "new", "how"),
    [
        ((1, 197, 8), (1, 577, 8), "bicubic from 14×14 to 24×24, 1 prefix token kept"),
        ((1, 196, 8), (1, 576, 8), "bicubic from 14×14 to 24×24"),
        ((50, 8), (197, 8), "bicubic from 7×7 to 14×14, 1 prefix token kept"),
        ((77, 8), (248, 8), "linear from 77 to 248 positions"),
        ((1, 8, 7, 7), (1, 8, 14, 14), "bicubic from 7×7 to 14×14"),
        ((1, 7, 7, 8), (1, 14, 10, 8), "bicubic from 7×7 to 14×10"),
        ((169, 3), (225, 3), "bicubic from 13×13 to 15×15"),
    ],
)
def test_what_interpolate_makes_of_shapes(old, new, how):
    """The grid, the line and the prefix tokens follow from the shapes alone."""
    result, report = run("interpolate", RNG.normal(size=old).astype("f4"), np.zeros(new, "f4"))
    assert result.shape == new
    assert how == report.adapted[0].how


def test_planes_and_lines_as_pytorch():
    """`[1, C, H, W]` tables and `[N, C]` lines are PyTorch's interpolation of them."""
    torch = pytest.importorskip("torch")
    plane = RNG.normal(size=(1, 5, 4, 6))
    expected = torch.nn.functional.interpolate(torch.from_numpy(plane), size=(7, 9), mode="bicubic", antialias=True)
    assert np.allclose(run("interpolate", plane, np.zeros((1, 5, 7, 9)))[0], expected.numpy())
    line = RNG.normal(size=(10, 5))
    for length in (17, 6):
        expected = torch.nn.functional.interpolate(torch.from_numpy(line.T[None]), size=length, mode="linear")[0].T
        assert np.allclose(run("linear", line, np.zeros((length, 5)))[0], expected.numpy())


def test_interpolate_for_all_names_is_for_positions_only():
    """`"interpolate"` for all names does not resize a classifier; for its own name it does."""
    source, target = {"head.weight": np.ones((4, 2), "f4")}, {"head.weight": np.ones((9, 2), "f4")}
    assert match(source, target, mismatched="interpolate").mismatched
    assert match(source, target, mismatched={"head": "interpolate"}).ok


def test_half_precision_is_interpolated_in_full():
    """A bfloat16 table comes out as bfloat16, computed in float64."""
    import ml_dtypes

    table = RNG.normal(size=(1, 16, 4))
    result, _ = run("interpolate", table.astype(ml_dtypes.bfloat16), np.zeros((1, 25, 4), "f4"))
    assert result.dtype == ml_dtypes.bfloat16
    assert np.allclose(result.astype("f8"), run("interpolate", table, np.zeros((1, 25, 4)))[0], atol=0.05)


def test_an_unknown_mode_is_refused():
    """A mode that does not exist is named."""
    with pytest.raises(ValueError, match="not 'nearest'"):
        interpolate("nearest")


def test_integers_are_not_interpolated():
    """Position numbers are not resized: the values between them would be wrong positions."""
    assert "floating-point elements, not int64" in refused("interpolate", np.arange(4), np.arange(8))
