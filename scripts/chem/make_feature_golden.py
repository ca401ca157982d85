# SPDX-License-Identifier: Apache-2.0
"""Writes the golden vectors of the node features: what RDKit finds in molecules of MOSES and of the package chemicals.

    python make_feature_golden.py --wheels DIR --output feature-golden.tsv.gz

Columns, parted by tabs, no header: source (moses or pubchem), smiles, features. The atoms' features are parted by semicolons: atomic
number, degree, formal charge, hybridisation, aromatic, radical electrons; hybridisation in the codes of MoleculeGraph.
"""

import argparse
import gzip
import random
from pathlib import Path

from rdkit import Chem, RDLogger

import sources

SEED = 20240117
CODES = {"UNSPECIFIED": 0, "S": 1, "SP": 2, "SP2": 3, "SP3": 4, "SP3D": 5, "SP3D2": 6}


def features(mol):
    rows = []
    for atom in mol.GetAtoms():
        code = CODES[atom.GetHybridization().name]
        values = (atom.GetAtomicNum(), atom.GetDegree(), atom.GetFormalCharge(), code)
        rows.append(",".join(map(str, values + (int(atom.GetIsAromatic()), atom.GetNumRadicalElectrons()))))
    return ";".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    rng = random.Random(SEED)
    lines = []
    for name, molecules, size in (
        ("moses", sources.moses(options.wheels, "test"), 1000),
        ("pubchem", sources.pubchem(options.wheels), 1500),
    ):
        for smiles in rng.sample(molecules, size):
            mol = Chem.MolFromSmiles(smiles)
            if mol is not None:
                lines.append(f"{name}\t{smiles}\t{features(mol)}")
    data = ("\n".join(lines) + "\n").encode("ascii")
    with open(options.output, "wb") as plain, gzip.GzipFile("", "wb", 9, plain, mtime=0) as packed:
        packed.write(data)
    print(f"{len(lines)} molecules")


if __name__ == "__main__":
    main()
