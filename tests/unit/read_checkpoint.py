"""Reads a checkpoint with h5py: every element, which makes HDF5 check every checksum.

    read_checkpoint.py FILE [--sums]

Prints the header and, with --sums, one line `PATH SHAPE SUM` a tensor (SUM in float64). Exits 1 with a reason where
the file is not as checkpoints/FORMAT.md says.
"""
import sys

import h5py
import numpy as np

STRINGS = ("config", "version", "commit", "instruction_set", "blas_kernel", "mpi", "hosts")
INTEGERS = ("format_version", "step", "tokens", "ranks", "threads")


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def tensors(file, group):
    for name, item in file[group].items():
        if not isinstance(item, h5py.Dataset):
            raise SystemExit(f"{group}/{name}: not a dataset")
        if item.dtype != np.dtype("<f4") or item.chunks is None or not item.fletcher32:
            raise SystemExit(f"{group}/{name}: expected float32 in chunks with Fletcher32")
        if item.ndim not in (1, 2) or item.chunks[1:] != item.shape[1:]:
            raise SystemExit(f"{group}/{name}: chunks {item.chunks} are not whole rows of {item.shape}")
        yield f"{group}/{name}", item


def main(path, sums):
    with h5py.File(path, "r") as file:
        for name in STRINGS + INTEGERS:
            if name not in file.attrs:
                raise SystemExit(f"{path}: no root attribute {name}")
        for name in INTEGERS:
            print(f"{name}: {int(file.attrs[name])}")
        for name in STRINGS:
            print(f"{name}: {text(file.attrs[name])!r}")
        print(f"samples_consumed: {file['/data/samples_consumed'][...].tolist()}")
        shapes = {}
        for group in ("/params", "/optimizer/m", "/optimizer/v"):
            for name, item in tensors(file, group):
                values = item[...]
                if not np.isfinite(values).all():
                    raise SystemExit(f"{name}: holds values that are not finite")
                shapes.setdefault(group, {})[item.name.rsplit("/", 1)[1]] = item.shape
                if sums:
                    print(name, list(item.shape), repr(float(values.sum(dtype=np.float64))))
        if shapes["/params"] != shapes["/optimizer/m"] or shapes["/params"] != shapes["/optimizer/v"]:
            raise SystemExit(f"{path}: moments and parameters differ in names or shapes")
        print(f"tensors: {len(shapes['/params'])}")


if __name__ == "__main__":
    main(sys.argv[1], "--sums" in sys.argv[2:])
