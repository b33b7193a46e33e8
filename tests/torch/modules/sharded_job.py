"""Run functions of this file on several ranks.

`python sharded_job.py FOLDER RANKS FUNCTION …`: prints what rank 0 returns for each function, as JSON, a line each. The exit
code is 1 if a rank failed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tests.ranks import answers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import statedict
import statedict.errors
import statedict.files
from statedict.torch.modules._assigning import Assigning
from statedict.tree import SOUND, Fit, Slots


class Plain(torch.nn.Module):
    """Parameters of all shapes: even and uneven, shorter than the number of ranks, a convolution, a tie, a buffer."""

    def __init__(self, seed=None):
        super().__init__()
        generator = torch.Generator().manual_seed(seed or 0)

        def filled(*shape, dtype=torch.float32):
            values = torch.zeros(shape) if seed is None else torch.randn(shape, generator=generator)
            return torch.nn.Parameter(values.to(dtype))

        self.even = filled(8, 12)
        self.uneven = filled(7, 5)
        self.short = filled(1, 6)
        self.vector = filled(9)
        self.kernel = filled(4, 6, 3, 3)
        self.brain = filled(10, 6, dtype=torch.bfloat16)
        self.wide = filled(96, 640)
        self.tie = self.even
        self.register_buffer("count", torch.tensor(0 if seed is None else 7))


class Network(torch.nn.Module):
    """Two layers, for tensor parallelism and FSDP2 by torch's own functions."""

    def __init__(self, seed=None):
        super().__init__()
        torch.manual_seed(seed or 0)
        self.up = torch.nn.Linear(16, 32)
        self.down = torch.nn.Linear(32, 12)
        if seed is None:
            for parameter in self.parameters():
                torch.nn.init.zeros_(parameter)

    def forward(self, x):
        return self.down(self.up(x))


PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}


def meshes():
    """The meshes of this number of ranks."""
    count = dist.get_world_size()
    yield init_device_mesh("cpu", (count,), mesh_dim_names=("dp",))
    if count == 4:
        yield init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))


def placements(mesh):
    if mesh.ndim == 1:
        return [[Shard(0)], [Shard(1)], [Replicate()]]
    pairs = (
        (Shard(0), Shard(0)),
        (Shard(0), Shard(1)),
        (Shard(1), Shard(0)),
        (Shard(1), Replicate()),
        (Replicate(), Shard(0)),
    )
    return [list(pair) for pair in pairs]


def distributed(module, mesh, placed):
    """Make every parameter of a module a DTensor; one of fewer dimensions is sharded by its first."""
    with torch.no_grad():
        known = {}
        for name, parameter in list(module.named_parameters(remove_duplicate=False)):
            if id(parameter) not in known:
                own = [Shard(0) if isinstance(p, Shard) and p.dim >= parameter.ndim else p for p in placed]
                made = distribute_tensor(parameter.detach(), mesh, own)
                known[id(parameter)] = parameter, torch.nn.Parameter(made)
            setattr(module, name, known[id(parameter)][1])
    return module


def sharded_models(seed=None):
    """Models of the ranks, sharded in all ways, with a name for each."""
    for mesh in meshes():
        for placed in placements(mesh):
            yield f"{placed} on {mesh.ndim}", "plain", distributed(Plain(seed), mesh, placed)
        if mesh.ndim == 1:
            yield "fsdp", "plain", fully_shard(Plain(seed), mesh=mesh)
            yield "tp", "network", parallelize_module(Network(seed), mesh, PLAN)
            network = fully_shard(Network(seed), mesh=mesh)
            yield "fsdp network", "network", network
        else:
            network = parallelize_module(Network(seed), mesh["tp"], PLAN)
            fully_shard(network.up, mesh=mesh["dp"])
            yield "fsdp and tp", "network", fully_shard(network, mesh=mesh["dp"])


def here(tensor):
    """What this rank has of a tensor."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor):
    with torch.no_grad():
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def differences(model, expected):
    """The names whose elements differ from those of the expected state, bit by bit."""
    found = model.state_dict() if not hasattr(model, "keys") else model
    return [
        name
        for name, tensor in expected.items()
        if (value := whole(found[name])).dtype != tensor.dtype or not torch.equal(value, tensor)
    ]


def files(folder):
    """The states of the two models in every format, and their files by model."""
    made = {}
    for name, model in (("plain", Plain(1)), ("network", Network(1))):
        state = model.state_dict()
        arrays = {key: tensor for key, tensor in state.items() if tensor.dtype != torch.bfloat16}
        paths = [folder / f"{name}.{suffix}" for suffix in ("pt", "legacy.pt", "safetensors", "npz")]
        torch.save(state, paths[0])
        torch.save(state, paths[1], _use_new_zipfile_serialization=False)
        statedict.save(model, paths[2])
        statedict.save(arrays, paths[3])
        statedict.save(model, folder / f"{name}-shards.safetensors", max_shard_size=3000)
        index = folder / f"{name}-shards.safetensors.index.json"
        dcp.save(state, checkpoint_id=folder / f"{name}-dcp", no_dist=True)
        made[name] = state, [*paths, index, folder / f"{name}-dcp"]
    return made


def table(folder, made):
    """Every source into every sharded model, compared with the whole tensors bit for bit; the combinations that differ."""
    wrong, done = [], 0
    # Chunks written by all ranks, whose boxes are not those of the models that load them.
    for mesh in meshes():
        for number, placed in enumerate(placements(mesh)):
            path = folder / f"dcp-{dist.get_world_size()}-{mesh.ndim}-{number}"
            dcp.save(distributed(Plain(1), mesh, placed).state_dict(), checkpoint_id=path)
            made["plain"][1].append(path)
        # Safetensors of each rank, as another writer of torch's has them, from version 2.8 on.
        if not hasattr(dcp, "HuggingFaceStorageWriter"):
            continue
        path, parts = folder / f"parts-{dist.get_world_size()}-{mesh.ndim}", placements(mesh)[mesh.ndim - 1]
        writer = dcp.HuggingFaceStorageWriter(str(path), save_distributed=True)
        own = distributed(Plain(1), mesh, parts).state_dict()
        dcp.save({**own, "tie": own["tie"].detach().clone()}, storage_writer=writer)
        made["plain"][1].append(path)
    for how, kind, model in sharded_models():
        state, paths = made[kind]
        for path in paths:
            cleared(model)
            lacks = ["brain"] if path.suffix == ".npz" and kind == "plain" else []
            report = statedict.load_state_dict(model, path, allow_missing=lacks)
            expected = {name: tensor for name, tensor in state.items() if name not in lacks}
            found = differences(model, expected)
            if found or not report.ok or sorted(report.loaded) != sorted(expected):
                wrong.append([how, path.name, found, str(report)])
            done += 1
    return {"wrong": wrong, "done": done, "ranks' safetensors": hasattr(dcp, "HuggingFaceStorageWriter")}


def expect(condition, *facts):
    if not condition:
        raise AssertionError(*facts)


def shards(tensor, mesh=None):
    """A new parameter with the elements of a tensor, sharded by rows over all ranks."""
    mesh = mesh or next(meshes())
    return torch.nn.Parameter(distribute_tensor(tensor.detach(), mesh, [Shard(0)] + [Replicate()] * (mesh.ndim - 1)))


class Two(torch.nn.Module):
    """A module of the given tensors, as parameters."""

    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            setattr(self, name, tensor if isinstance(tensor, torch.nn.Parameter) else shards(tensor))


def cleared(model):
    """Fill all elements with zeros, without any communication."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            here(tensor).zero_()
    return model


def assigned(folder, made):
    """`assign=True` into models with and without memory: DTensors of the same mesh and placements, in the value's dtype."""
    for kind, fresh in (("plain", Plain), ("network", Network)):
        state, paths = made[kind]
        for path in paths if kind == "network" else paths[:3]:
            for device in ("cpu", "meta"):
                with torch.device(device):
                    model = fully_shard(fresh(), mesh=next(meshes()))
                before = {name: parameter.placements for name, parameter in model.named_parameters()}
                report = statedict.load_state_dict(model, path, assign=True)
                expect(report.ok, str(report))
                expect(not differences(model, state), kind, path, device, differences(model, state))
                expect(before == {name: parameter.placements for name, parameter in model.named_parameters()})
                expect(all(p.requires_grad for p in model.parameters()))
    expect(fresh is Network and model(torch.ones(2, 16)).shape == (2, 12))
    used = fully_shard(Network(2), mesh=next(meshes()))
    used(torch.ones(2, 16)).sum().backward()
    statedict.load_state_dict(used, state, assign=True)
    expected = Network(1)(torch.ones(2, 16))
    expect(torch.allclose(used(torch.ones(2, 16)), expected))
    again = fully_shard(Network(2), mesh=next(meshes()))
    again(torch.ones(2, 16)).sum().backward()
    statedict.load_state_dict(again, dict(used.state_dict()), assign=True)
    expect(torch.allclose(again(torch.ones(2, 16)), expected), "FSDP uses the parameters that were replaced")
    tied = fully_shard(Plain(), mesh=next(meshes()))
    statedict.load_state_dict(tied, made["plain"][1][0], assign=True)
    expect(tied.tie is tied.even)
    half = Two(a=torch.zeros(6, 4))
    statedict.load_state_dict(half, {"a": torch.arange(24.0).reshape(6, 4).double()}, assign=True)
    expect(half.a.dtype == torch.float64 and not differences(half, {"a": torch.arange(24.0).reshape(6, 4).double()}))
    return "done"


def emptied(folder, made):
    """A model made on the meta device, sharded, and given memory with `to_empty`; without it nothing is loaded."""
    state, paths = made["network"]
    with torch.device("meta"):
        model = fully_shard(Network(), mesh=next(meshes()))
    report = statedict.load_state_dict(model, paths[2], strict=False, dry_run=True)
    expect(sorted(report.missing) == sorted(state), str(report))
    model.to_empty(device="cpu")
    for path in paths:
        expect(statedict.load_state_dict(cleared(model), path).ok)
        expect(not differences(model, state))
    return "done"


def converted(folder, made):
    """Rules that split, transpose, join and reshape, casts, policies for shapes, selections, and wrappers' prefixes."""
    whole = torch.arange(240.0).reshape(20, 12)
    path = folder / f"rules-{dist.get_rank()}.safetensors"
    statedict.save({"a": whole, "b": whole + 0.5, "c.d": whole[:3]}, path)
    cases = [
        ("a -> x | transpose", {"x": whole.T}),
        ("a -> x, y | split 0", {"x": whole[:10], "y": whole[10:]}),
        ("a -> x, y | split 1 5 7", {"x": whole[:, :5], "y": whole[:, 5:]}),
        ("a -> x, y | split 1 | transpose", {"x": whole[:, :6].T, "y": whole[:, 6:].T}),
        ("a, b -> x | cat 0", {"x": torch.cat([whole, whole + 0.5])}),
        ("a, b -> x | cat 1", {"x": torch.cat([whole, whole + 0.5], 1)}),
        ("a, b -> x | stack 0", {"x": torch.stack([whole, whole + 0.5])}),
        ("a, b -> x | stack 2", {"x": torch.stack([whole, whole + 0.5], 2)}),
        ("a -> x | reshape 5 48", {"x": whole.reshape(5, 48)}),
        ("a -> x | transpose | reshape 16 15", {"x": whole.T.reshape(16, 15)}),
    ]
    for number, (rule, expected) in enumerate(cases):
        for mesh in meshes():
            for placed in placements(mesh):
                dtype = torch.bfloat16 if number % 2 else torch.float32
                cast = {name: tensor.to(dtype) for name, tensor in expected.items()}
                zeros = {name: torch.nn.Parameter(torch.zeros_like(tensor)) for name, tensor in cast.items()}
                model = distributed(Two(**zeros), mesh, placed)
                report = statedict.load_state_dict(model, path, rename=rule, allow_unexpected=["a", "b", "c.d"])
                expect(report.ok and not differences(model, cast), rule, placed, dtype, str(report))
                expect(len(report.cast) == (len(expected) if number % 2 else 0), report.cast)
    model = Two(a=torch.zeros(25, 12), b=torch.zeros(7, 12))
    report = statedict.load_state_dict(model, path, mismatched="slice", allow_unexpected="c.d")
    kept = torch.cat([whole, torch.zeros(5, 12)])
    expect(report.ok and not differences(model, {"a": kept, "b": (whole + 0.5)[:7]}), str(report))
    try:
        statedict.load_state_dict(model, path, mismatched=lambda source, target: target, allow_unexpected="c.d")
    except statedict.errors.LoadError as error:
        expect("only a part of this tensor of shape [25, 12]" in str(error), str(error))
    else:
        raise AssertionError("a function was given a part of the model's tensor")
    model = Two(a=torch.ones(20, 12), b=torch.ones(9, 3))
    report = statedict.load_state_dict(model, path, mismatched="skip", include=["b", "a"])
    expect(not differences(model, {"a": whole, "b": torch.ones(9, 3)}), str(report))
    statedict.load_state_dict(cleared(model), path, include="a", exclude="b")
    expect(not differences(model, {"a": whole}))
    inner = torch.nn.Module()
    inner.inside = Two(d=torch.zeros(3, 12))
    statedict.load_state_dict(inner, {"module.d": whole[:3]}, into="inside")
    expect(not differences(inner.inside, {"d": whole[:3]}))
    return "done"


def live(folder, made):
    """States of sharded models as sources: of the same mesh and placements, replicated, and others, which are refused."""
    mesh = next(meshes())
    rows = torch.arange(70.0).reshape(14, 5)
    for source in (
        Two(a=rows),
        statedict.state_dict(Two(a=rows)),
        {"a": rows},
        {"a": rows.sparse_mask(rows.to_sparse()).to_dense()},
    ):
        model = Two(a=torch.zeros(14, 5))
        expect(statedict.load_state_dict(model, source).ok)
        expect(not differences(model, {"a": rows}))
    model = Two(a=torch.zeros(14, 5))
    statedict.load_state_dict(model, {"a": distribute_tensor(rows, mesh, [Replicate()])})
    expect(not differences(model, {"a": rows}))
    plain = torch.nn.Module()
    plain.a = torch.nn.Parameter(torch.zeros(14, 5))
    statedict.load_state_dict(plain, {"a": distribute_tensor(rows, mesh, [Replicate()])})
    expect(torch.equal(plain.a, rows))
    columns = distribute_tensor(rows, mesh, [Shard(1)])
    other = DTensor.from_local(rows, mesh, [Partial()], run_check=False)
    for target, value, text in (
        (model, columns, "only a part of this tensor of shape [14, 5] ([Shard(1) of dp "),
        (plain, columns, "all of it is needed"),
        (model, other, "[Partial of dp "),
        (Two(a=torch.nn.Parameter(other)), rows, "reduce it first"),
    ):
        before = here(target.a).clone()
        try:
            statedict.load_state_dict(target, {"a": value})
        except statedict.errors.LoadError as error:
            expect(text in str(error), str(error))
        else:
            raise AssertionError(text)
        expect(torch.equal(before, here(target.a)))
    odd = DTensor.from_local(torch.zeros(1, 5), mesh, [Shard(0)], run_check=False, shape=rows.shape, stride=(5, 1))
    try:
        statedict.load_state_dict(Two(a=torch.nn.Parameter(odd)), {"a": rows})
    except statedict.errors.LoadError as error:
        expect("its local tensor has shape [1, 5], but [Shard(0) of dp" in str(error), str(error))
    else:
        raise AssertionError("a local tensor of another shape was filled")
    same = statedict.load_state_dict(model, statedict.state_dict(model))
    expect(same.ok and not differences(model, {"a": rows}))
    return "done"


def told(folder, made):
    """`spec` is that of the whole tensor and the leaf tells the placement; a dry run reports and changes nothing."""
    model = fully_shard(Network(), mesh=next(meshes()))
    state = statedict.state_dict(model)
    expect(state.spec("up.weight").shape == (32, 16))
    expect(str(state.leaf("up.weight")) == f"Parts(float32, [32, 16], [Shard(0) of dp {dist.get_world_size()}])")
    report = statedict.load_state_dict(model, made["network"][1][0], dry_run=True)
    expect(report.ok and len(report.loaded) == 4, str(report))
    expect(not differences(model, {name: torch.zeros_like(tensor) for name, tensor in made["network"][0].items()}))
    report = statedict.load_state_dict(model, {"up.weight": torch.ones(3, 3)}, strict=False, dry_run=True)
    expect([(one.found, one.expected) for one in report.mismatched] == [((3, 3), (32, 16))], str(report))
    return "done"


def damaged(folder, made):
    """A source that fails while it is read leaves the old values."""
    state, paths = made["network"]
    for assign in (False, True):
        model = fully_shard(Network(2), mesh=next(meshes()))
        before = {name: whole(tensor).clone() for name, tensor in model.state_dict().items()}
        data = bytearray(paths[0].read_bytes())
        place = data.find(state["down.weight"].numpy().tobytes())
        data[place + 5] ^= 1
        path = folder / f"damaged-{dist.get_rank()}.pt"
        path.write_bytes(data)
        try:
            statedict.load_state_dict(model, path, assign=assign)
        except statedict.errors.ChecksumError:
            expect(not differences(model, before))
        else:
            raise AssertionError("it was loaded")
    kept = fully_shard(Network(2), mesh=next(meshes()))
    expected = Network(2)(torch.ones(2, 16))
    kept(torch.ones(2, 16)).sum().backward()
    try:
        statedict.load_state_dict(kept, paths[0] if dist.get_rank() else folder / "missing.pt", assign=True)
    except (statedict.errors.RankError, FileNotFoundError):
        expect(torch.allclose(kept(torch.ones(2, 16)), expected), "FSDP uses the parameters of a refused load")
    else:
        raise AssertionError("it was loaded on some ranks")
    freed = torch.ones(8, 4)
    freed.untyped_storage().resize_(0)
    model = Two(a=torch.zeros(8, 4))
    for assign in (False, True):
        try:
            statedict.load_state_dict(model, {"a": freed}, assign=assign)
        except statedict.errors.LoadError as error:
            expect("out of bounds for storage of size 0" in str(error), str(error))
        else:
            raise AssertionError("freed memory was loaded")
    slots = Slots(["a"], [model.a], [torch.ones(8, 4)], assign=True, places=[(model, "a")])
    try:
        Assigning(slots, SOUND, lambda slots, rules: Fit(tuple, ["a: it cannot be copied"])).fit.act()
    except statedict.errors.LoadError as error:
        expect(str(error) == "a: it cannot be copied", str(error))
    else:
        raise AssertionError("a value that cannot be copied was assigned")
    expect(not differences(model, {"a": torch.zeros(8, 4)}))
    return "done"


class Counting:
    """A File that counts the bytes that are read."""

    def __init__(self, file):
        self._file = file
        self.count = 0

    def read(self, offset, nbytes):
        self.count += nbytes
        return self._file.read(offset, nbytes)

    def read_into(self, spans):
        spans = list(spans)
        self.count += sum(len(into) for _, into in spans)
        self._file.read_into(spans)

    def __getattr__(self, name):
        return getattr(self._file, name)


def counted(folder, made):
    """The bytes that this rank reads of a file of row shards, and the bytes that it keeps."""
    torch.manual_seed(5)
    names = {f"layer{n}": torch.randn(64 + n, 2048) for n in range(6)}
    ways = [(f"rows of {suffix}", suffix, Shard(0), True) for suffix in ("pt", "npz", "safetensors")]
    ways += [("unverified rows", "pt", Shard(0), False), ("unverified columns", "pt", Shard(1), False)]
    found = {}
    for how, suffix, placed, verify in ways:
        path = folder / f"large-{dist.get_rank()}.{suffix}"
        statedict.save(names, path)
        module = torch.nn.Module()
        for name, tensor in names.items():
            setattr(
                module, name, torch.nn.Parameter(distribute_tensor(torch.zeros_like(tensor), next(meshes()), [placed]))
            )
        file = Counting(statedict.files.open(str(path)))
        with statedict.open(file) as checkpoint:
            file.count = 0
            statedict.load_state_dict(module, checkpoint, verify=verify)
        expect(not differences(module, names))
        kept = sum(parameter.to_local().nbytes for parameter in module.parameters())
        found[how] = [file.count, kept]
    return found


def frugal(folder, made):
    """The additional memory of this rank at the peak of a load, its own shards, and the whole tensors, in MB."""
    path = folder / f"huge-{dist.get_world_size()}.pt"
    if dist.get_rank() == 0:
        torch.save({"a": torch.ones(96, 1 << 18)}, path)
    dist.barrier()
    model = torch.nn.Module()
    model.a = torch.nn.Parameter(torch.zeros(96, 1 << 18))
    fully_shard(model, mesh=next(meshes()))  # its hooks must not lead to another backup
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    before = resident("VmRSS")
    expect(statedict.load_state_dict(model, path).ok)
    return [(resident("VmHWM") - before) >> 10, here(model.a).nbytes >> 20, 96]


def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main(folder, count, *functions, known=None, files=files):
    """Run functions on `count` ranks; each gets the folder, and what `files(folder)` has made there before.

    `known`: the functions by name, where they are not those of this file.
    """
    made = files(folder)

    def act(rank):
        returned = []
        for name in functions:
            returned.append((known or globals())[name](folder, made))
            dist.barrier()
        return returned

    for answer in answers(count, act)[0] or []:
        print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
