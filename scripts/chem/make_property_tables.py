# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of the molecular properties: SMARTS patterns and their values, atomic weights, fragment scores.

    python make_property_tables.py --wheels DIR --output src/main/resources/io/molfuse/chem

DIR holds the wheels named in requirements.txt; RDKit is the one installed. The same versions give the same bytes.

  crippen.tsv          atom types of Wildman and Crippen: SMARTS, logP; the first type that fits an atom counts
  qed-alerts.tsv       the structural alerts of Bickerton et al.: SMARTS
  qed-acceptors.tsv    the hydrogen-bond acceptors of QED: SMARTS
  filters.tsv          MCF and PAINS as MOSES applies them: name, SMARTS
  brics.tsv            bonds that BRICS cuts: label and SMARTS of one end, bond, label and SMARTS of the other
  atomic-weights.tsv   standard atomic weights by atomic number, from 0, in g/mol
  sa-scores.bin.gz     fragment scores of Ertl and Schuffenhauer, big-endian: the number of fragments as int32, the number of scores
                       as int32, the scores as float32, the fragments' Morgan identifiers ascending, each as its distance to
                       the one before in unsigned int32, and the index of each one's score as unsigned int16
"""

import argparse
import csv
import gzip
import io
import pickle
import re
import struct
import zipfile
from pathlib import Path

from rdkit import Chem, RDConfig
from rdkit.Chem import BRICS, QED

import sources


def write(folder, name, source, rows):
    lines = [f"# {source}"] + ["\t".join(row) for row in rows]
    (folder / name).write_bytes(("\n".join(lines) + "\n").encode("ascii"))
    print(f"{name}: {len(rows)} rows")


def crippen():
    # The file differs from the table inside the library, which is what is in use, in two types: there aromatic atoms are meant too.
    compiled = {"[#1]O[!C;!N;!O;!S]": "[#1]O[!#6;!#7;!#8;!#16]", "[#1][!C;!N;!O]": "[#1][!#6;!#7;!#8]"}
    rows = []
    for line in open(Path(RDConfig.RDDataDir) / "Crippen.txt", encoding="utf-8"):
        columns = line.rstrip("\n").split("\t")
        if line[0] != "#" and len(columns) > 2 and columns[1]:
            rows.append((compiled.get(columns[1], columns[1]), columns[2] or "0"))
    return rows


def filters(wheels):
    rows = []
    with zipfile.ZipFile(wheels / sources.MOLSETS) as wheel:
        mcf = io.StringIO(wheel.read("moses/metrics/mcf.csv").decode("ascii"))
        rows += [(row["names"], row["smarts"].strip()) for row in csv.DictReader(mcf)]
        pains = io.StringIO(wheel.read("moses/metrics/wehi_pains.csv").decode("ascii"))
        for smarts, name in csv.reader(pains):
            rows.append((re.sub(r"<regId=(.*)>", r"\1", name.strip()), smarts.strip()))
    return rows


def brics():
    rows = []
    for group in BRICS.reactionDefs:
        for first, second, bond in group:
            ends = [(re.sub("[a-z]", "", label), BRICS.environs["L" + label]) for label in (first, second)]
            rows.append((*ends[0], bond, *ends[1]))
    return rows


def scores():
    packed = Path(RDConfig.RDContribDir) / "SA_Score" / "fpscores.pkl.gz"
    by_identifier = {}
    for row in pickle.load(gzip.open(packed)):
        for identifier in row[1:]:
            by_identifier[identifier] = row[0]
    values = sorted(set(by_identifier.values()))
    index = {value: i for i, value in enumerate(values)}
    identifiers = sorted(by_identifier)
    data = struct.pack(">ii", len(identifiers), len(values)) + struct.pack(f">{len(values)}f", *values)
    distances = [after - before for before, after in zip([0] + identifiers, identifiers)]
    data += struct.pack(f">{len(distances)}I", *distances)
    return data + struct.pack(f">{len(identifiers)}H", *(index[by_identifier[i]] for i in identifiers))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    table = Chem.GetPeriodicTable()
    rdkit = "RDKit 2026.9.1, BSD-3-Clause"
    write(options.output, "crippen.tsv", f"Data/Crippen.txt of {rdkit}", crippen())
    write(options.output, "qed-alerts.tsv", f"QED.py of {rdkit}", [(s,) for s in QED.StructuralAlertSmarts])
    write(options.output, "qed-acceptors.tsv", f"QED.py of {rdkit}", [(s,) for s in QED.AcceptorSmarts])
    write(options.output, "filters.tsv", "mcf.csv and wehi_pains.csv of molsets 0.3.1, MIT", filters(options.wheels))
    write(options.output, "brics.tsv", f"BRICS.py of {rdkit}", brics())
    weights = [(f"{table.GetAtomicWeight(number):.6g}",) for number in range(119)]
    write(options.output, "atomic-weights.tsv", f"periodic table of {rdkit}", weights)
    with open(options.output / "sa-scores.bin.gz", "wb") as plain, gzip.GzipFile("", "wb", 9, plain, mtime=0) as packed:
        packed.write(scores())


if __name__ == "__main__":
    main()
