"""What is in this file? Without PyTorch, and without running anything that the file names.

python examples/look_inside.py FILE
"""

import sys

import statedict


def main(file: str) -> None:
    with statedict.open(file) as checkpoint:
        print(f"{checkpoint.format}, {checkpoint.size:,} bytes, state dicts at {list(checkpoint.roots)}")
        for path, state in checkpoint.roots.items():
            for name, leaf in state.leaves():
                print(f"{path or '(file)'}  {name}  {leaf}")
        for finding in checkpoint.verify():
            print(finding)
        for state in checkpoint.roots.values():
            arrays = state.numpy()  # NumPy arrays, each read when it is asked for
            largest = max(arrays, key=lambda name: arrays.spec(name).nbytes)
            print(f"{largest}: mean {arrays[largest].mean():.4g}")


if __name__ == "__main__":
    main(sys.argv[1])
