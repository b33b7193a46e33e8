"""Average several checkpoints of one run; the result is often better than each of them.

    python examples/average.py OUTPUT FILE FILE [FILE ...]

Only one tensor at a time is in memory, whatever the size of the files.
"""

import sys

import statedict


def main(output: str, files: list[str]) -> None:
    average = statedict.merge(files, method="average")
    statedict.save(average, output)
    print(f"{output}: the average of {len(files)} files, {len(average)} tensors")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
