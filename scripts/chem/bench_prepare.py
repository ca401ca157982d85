# SPDX-License-Identifier: Apache-2.0
"""How much faster `molfuse prepare` is, per core, than a Python script of RDKit and selfies that makes the same of the same file.

    python bench_prepare.py FILE.smi [--molecules 200000] [--python-molecules 5000] [--molfuse bin/molfuse]

Both read SMILES, keep the largest fragment, take off charges, canonicalise, drop copies, compute graph and SELFIES symbols, and write all of
it. Both are measured in processor time of the whole process, so that other work on the machine counts for neither; Java's start and its
warming up are in its time, which is why it gets more molecules. --molfuse must be built. Prints one JSON object.
"""

import argparse
import itertools
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()


def python_side(file: Path, output: Path) -> int:
    """What `prepare` does, as one would write it with the packages. Gives the number of molecules written."""
    import selfies
    from rdkit import Chem, RDLogger
    from rdkit.Chem.MolStandardize import rdMolStandardize

    RDLogger.DisableLog("rdApp.*")
    largest = rdMolStandardize.LargestFragmentChooser()
    uncharger = rdMolStandardize.Uncharger()
    seen = set()
    numbers = {}
    written = 0
    with open(file, encoding="utf-8") as lines, open(output / "records.pickle", "wb") as records, open(output / "all.smi", "w") as smi:
        for line in lines:
            fields = line.split()
            molecule = Chem.MolFromSmiles(fields[0]) if fields else None
            if molecule is None:
                continue
            molecule = uncharger.uncharge(largest.choose(molecule))
            canonical = Chem.MolToSmiles(molecule)
            if canonical in seen:
                continue
            seen.add(canonical)
            try:
                symbols = list(selfies.split_selfies(selfies.encoder(canonical)))
            except selfies.EncoderError:
                continue
            atoms = [
                (atom.GetAtomicNum(), atom.GetDegree(), atom.GetFormalCharge(), int(atom.GetHybridization()), atom.GetIsAromatic(),
                 atom.GetNumRadicalElectrons())
                for atom in molecule.GetAtoms()
            ]
            edges = sorted(
                pair
                for bond in molecule.GetBonds()
                for pair in ((bond.GetEndAtomIdx(), bond.GetBeginAtomIdx()), (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            )
            tokens = [numbers.setdefault(symbol, len(numbers)) for symbol in symbols]
            pickle.dump((atoms, edges, tokens, canonical), records)
            smi.write(canonical + "\n")
            written += 1
    return written


def child(command, **more):
    """Processor seconds and wall seconds of a process and its children, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more)
    wall = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, done.stdout


def head(file: Path, lines: int, to: Path) -> int:
    with open(file, encoding="utf-8") as source, open(to, "w", encoding="utf-8") as target:
        some = list(itertools.islice(source, lines))
        target.writelines(some)
    return len(some)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--molecules", type=int, default=200_000)
    parser.add_argument("--python-molecules", type=int, default=5_000)
    parser.add_argument("--molfuse", type=Path, default=HERE.parents[2] / "bin/molfuse")
    parser.add_argument("--python-side", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.python_side:
        print(python_side(options.file, options.python_side))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        java_file, python_file = folder / "java.smi", folder / "python.smi"
        java_count = head(options.file, options.molecules, java_file)
        python_count = head(options.file, options.python_molecules, python_file)
        # Started once before, so that a build or a cold file cache is not measured.
        subprocess.run([options.molfuse, "prepare", python_file, "--output", folder / "warm"], check=True, stderr=subprocess.DEVNULL)
        java, java_wall, _ = child([options.molfuse, "prepare", java_file, "--output", folder / "data"], stderr=subprocess.DEVNULL)
        python, python_wall, written = child([sys.executable, HERE, python_file, "--python-side", folder])
        kept = json.loads((folder / "data" / "dataset.json").read_text())["molecules"]
        print(json.dumps({
            "file": options.file.name,
            "molfuse": {"records": java_count, "kept": kept, "processor_seconds": java, "wall_seconds": java_wall,
                        "records_per_processor_second": java_count / java},
            "python": {"records": python_count, "kept": int(written), "processor_seconds": python, "wall_seconds": python_wall,
                       "records_per_processor_second": python_count / python},
            "ratio": (java_count / java) / (python_count / python),
            "cores": os.cpu_count(),
        }, indent=2))


if __name__ == "__main__":
    main()
