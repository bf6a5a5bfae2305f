"""Writes scikit-learn's digits dataset as gzipped IDX files, which residual-data embeds.

usage: python scripts/pack-digits.py        (in an environment with `pip install scikit-learn`)
"""

import gzip
import pathlib
import struct

from sklearn.datasets import load_digits

out = pathlib.Path(__file__).parent.parent / "crates/residual-data/data/digits"
digits = load_digits()
images = digits.images.astype("uint8")
labels = digits.target.astype("uint8")


def write(name, header, values):
    data = struct.pack(">" + "I" * len(header), *header) + values.tobytes()
    (out / name).write_bytes(gzip.compress(data, 9, mtime=0))


write("images-idx3-ubyte.gz", (0x803, *images.shape), images)
write("labels-idx1-ubyte.gz", (0x801, *labels.shape), labels)
