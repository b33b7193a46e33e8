"""List the contents of a checkpoint, without PyTorch and without running code from the file.

python examples/look_inside.py FILE
"""

import sys

import statedict


def main(file: str) -> None:
    with statedict.open(file) as checkpoint:
        print(f"{checkpoint.format}, {checkpoint.size:,} bytes, state dicts at {list(checkpoint.roots)}")
        for path, state in checkpoint.roots.items():
            sizes = {}
            for name, leaf in state.leaves():  # known from the headers; no tensor is read yet
                spec = getattr(leaf, "spec", leaf)  # sparse and quantised tensors have several
                sizes[name] = spec.nbytes
                print(f"{path or '(file)'}  {name}  {spec.dtype} {list(spec.shape)}, {spec.nbytes:,} bytes")
            if sizes:
                largest = max(sizes, key=lambda name: sizes[name])
                array = state.numpy()[largest]  # reads only this tensor
                print(f"the largest, {largest}: mean {array.mean():.4g}")
        for finding in checkpoint.verify():
            print(finding)


if __name__ == "__main__":
    main(sys.argv[1])
