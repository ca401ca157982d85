# SPDX-License-Identifier: Apache-2.0
"""Molecules inside the wheels molsets 0.3.1 and chemicals 1.5.2, read without installing those packages."""

import csv
import gzip
import io
import zipfile
from pathlib import Path

MOLSETS = "molsets-0.3.1-py3-none-any.whl"
CHEMICALS = "chemicals-1.5.2-py3-none-any.whl"


def moses(folder: Path, split: str) -> list[str]:
    """The SMILES of the MOSES split "train" or "test", in file order."""
    with zipfile.ZipFile(folder / MOLSETS) as wheel:
        with wheel.open(f"moses/dataset/data/{split}.csv.gz") as packed:
            text = gzip.decompress(packed.read()).decode("ascii")
    rows = csv.reader(io.StringIO(text))
    header = next(rows)
    column = header.index("SMILES")
    return [row[column] for row in rows]


def pubchem(folder: Path) -> list[str]:
    """The SMILES of the table of common chemicals in the package chemicals (from PubChem), in file order."""
    found = []
    with zipfile.ZipFile(folder / CHEMICALS) as wheel:
        for name in ("pubchem large", "pubchem small"):
            with wheel.open(f"chemicals/Identifiers/chemical identifiers {name}.tsv") as table:
                found += [line.decode("utf-8").split("\t")[4].strip() for line in table]
        for name in ("Anion", "Cation", "Inorganic"):
            with wheel.open(f"chemicals/Identifiers/{name} db.tsv") as table:
                found += [line.decode("utf-8").split("\t")[4].strip() for line in table]
    return [smiles for smiles in found if smiles and smiles.isascii() and not any(c in smiles for c in " \t")]
