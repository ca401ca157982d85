# SPDX-License-Identifier: Apache-2.0
"""Writes the bundled molecules: samples of the train and test splits of MOSES (Polykovskiy et al. 2020), from the wheel molsets.

    python make_bundled_dataset.py --wheels DIR --output src/main/resources/io/molfuse/chem

DIR holds the wheel named in requirements.txt. The same version gives the same bytes.
"""

import argparse
import gzip
import random
from pathlib import Path

import sources

SEED = 20240117
SAMPLES = (("train", 25_000, "moses-25k.smi.gz"), ("test", 2_500, "moses-test-2k5.smi.gz"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    for split, size, name in SAMPLES:
        molecules = sorted(set(sources.moses(options.wheels, split)))
        sample = random.Random(SEED).sample(molecules, size)
        text = f"# {size} molecules of the MOSES {split} split, package molsets 0.3.1, MIT licence\n" + "\n".join(sample) + "\n"
        with open(options.output / name, "wb") as plain, gzip.GzipFile("", "wb", 9, plain, mtime=0) as packed:
            packed.write(text.encode("ascii"))
        print(f"{name}: {size} of {len(molecules)}")


if __name__ == "__main__":
    main()
