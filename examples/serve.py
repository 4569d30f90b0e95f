"""Run an exported model on images: this needs jax and NumPy, and nothing else.

    python examples/serve.py results/shrink/swd-50.bin results/shrink/test.npz

`shrink.py --export` writes both.
"""

import sys
from pathlib import Path

import jax
import numpy as np

BATCH = 500

if len(sys.argv) != 3:
    sys.exit(__doc__)
program, images = map(Path, sys.argv[1:])
try:
    model = jax.export.deserialize(bytearray(program.read_bytes()))
    with np.load(images) as file:
        pixels, labels = file["pixels"], file["labels"]
except OSError as error:
    sys.exit(f"{Path(__file__).name}: {error}")
parts = range(0, len(labels), BATCH)
found = [np.asarray(model.call(pixels[i : i + BATCH])).argmax(1) for i in parts]
right = (np.concatenate(found) == labels).mean()
print(f"{program.name}: {program.stat().st_size:,} bytes, {100 * right:.2f} % right")
