# SPDX-License-Identifier: Apache-2.0
"""Writes the golden values of the property and metric tests: what RDKit and the Python package molsets find.

    python make_property_golden.py --wheels DIR --output src/test/resources/io/molfuse/chem [--scale 1]

DIR holds the wheels named in requirements.txt; numpy, pandas and scipy are installed besides them. Of molsets its file metrics/utils.py
is run as it is, with the one function of torch it calls on a CPU done by numpy. --scale multiplies the number of molecules, for checks
on more than is committed.

property-golden.tsv.gz: columns parted by tabs, no header: source (moses, pubchem or hard), smiles, weight, logP, QED, TPSA, rings,
hydrogen-bond donors, hydrogen-bond acceptors, rotatable bonds, synthetic accessibility, one character for each atom (1 if aromatic),
Morgan bits as hexadecimal digits (bit 0 is the highest of the first digit), whether the filters of MOSES pass.

metric-golden.tsv.gz: rows of kind generated (SMILES), reference (SMILES) and value (name, number).
"""

import argparse
import gzip
import random
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import Chem, RDConfig, RDLogger
from rdkit.Chem import Crippen, Descriptors, rdMolDescriptors
from rdkit.Chem.QED import qed
from scipy.spatial.distance import cosine
from scipy.stats import wasserstein_distance

import sources

SEED = 20240117
HARD = [
    "C", "[H][H]", "O", "[NH4+]", "[CH3]", "[13CH4]", "[2H]C([2H])[2H]", "[Na+].[Cl-]", "C1CC1", "C12C3C4C1C5C4C3C25", "C1CC2CCC1CC2",
    "C1CC2CCC1C2", "C1CCC2(CC1)CCCC2", "c1ccc2cccc-2cc1", "c1ccc2ccccc2c1", "C1=CC=CC=CC=C1", "C1=CC=C1", "[cH+]1cccccc1",
    "[cH-]1cccc1", "c1cc[nH]c1", "c1ccoc1", "c1ccsc1", "c1cc[se]c1", "O=c1cccc[nH]1", "O=C1C=CC(=O)C=C1", "O=C1C=CC=CC=C1",
    "C=C1C=CC=CC1=C", "C1=CC2=CC=CC2=C1", "c1cc2ccc3cccc4ccc(c1)c2c34", "C1=Cc2cccc3cccc1c23", "c1ccc2c(c1)[nH]c1ccccc12",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "Nc1ncnc2[nH]cnc12", "c1nnn[nH]1", "[O-][n+]1ccccc1", "C[n+]1ccccc1", "CN(=O)=O", "C[N+](=O)[O-]",
    "CN=[N+]=[N-]", "CN=N#N", "CS(=O)C", "CS(=O)(=O)N", "CP(=O)(O)O", "OP(=O)(O)OP(=O)(O)O", "B1OCCO1", "O=C1NC(=O)c2ccccc21",
    "c1ccc(cc1)-c1ccccc1", "CC(C)(C)c1ccc(O)cc1", "FC(F)(F)c1ccccc1", "N#Cc1ccccc1", "CC#CC", "C=C=C", "OC(=O)c1ccccc1OC(C)=O",
    "C1CN1", "C1CO1", "N1C=CC=C1C=O", "S1C=CN=C1N", "C1=CSC=CS1", "C1=COC=CO1", "C1=CNC=CN1", "O=C1C=COC=C1", "S=C1C=CSS1",
    "C[Si](C)(C)C", "[O-]Cl(=O)(=O)=O", "O=S1(=O)C=CC=C1", "c1ccc2c(c1)oc1ccccc12", "C1CCCCCCCCCCC1", "CCCCCCCCCCCCCCCCCC(=O)O",
    "C1CC1C(=O)NC(=O)c1ccc(cc1)S(=O)(=O)N", "O=C(O)CC(O)(CC(=O)O)C(=O)O", "C[C@H](N)C(=O)O", "F/C=C/F", "C1=CC=C[N]1",
    "c1cc2cc3ccc(cc4nc(cc5ccc(cc1n2)[nH]5)C=C4)[nH]3", "C1C2CC3CC1CC(C2)C3", "C1=CN2C=CC=CC2=C1", "c1ccn2cccc2c1",
    "c1cn2cccc3cccc1c23", "O=c1c2ccccc2[nH]c2ccccc12", "C1=C[NH+]=CN1", "[nH+]1cc[nH]c1", "c1ccc[o+]cc1", "c1cc[o+]cc1",
    "N=c1ccccn1C", "CN1C=CC(=N)C=C1", "C=c1cccc[nH]1", "O=c1oc2ccccc2c2ccccc12", "O=P1(O)OCCO1", "CN(C)c1ccc(N=Nc2ccccc2)cc1",
]


def molsets_utils(folder, sascorer):
    """The module moses.metrics.utils, with what else it imports replaced where this leaves its results as they are."""

    class Array:
        def __init__(self, values):
            self.values = np.asarray(values)

        def to(self, _):
            return self

        def float(self):
            return Array(self.values.astype(np.float32))

        def transpose(self, a, b):
            return Array(self.values.swapaxes(a, b))

        def sum(self, axis, keepdim):
            return Array(self.values.sum(axis, keepdims=keepdim))

        def cpu(self):
            return self

        def numpy(self):
            return np.array(self.values, dtype=np.float64)

        @property
        def shape(self):
            return self.values.shape

        def __add__(self, other):
            return Array(self.values + other.values)

        def __sub__(self, other):
            return Array(self.values - other.values)

        def __truediv__(self, other):
            return Array(self.values / other.values)

    torch = types.ModuleType("torch")
    torch.tensor = Array
    torch.mm = lambda a, b: Array(a.values @ b.values)
    sys.modules["torch"] = torch
    pd.DataFrame.append = lambda self, other, sort: pd.concat([self, other], sort=sort)
    helpers = types.ModuleType("moses.utils")
    helpers.mapper = lambda jobs: lambda function, values: [function(value) for value in values]
    helpers.get_mol = lambda given: Chem.MolFromSmiles(given) if isinstance(given, str) else given
    sys.path.insert(0, str(folder))
    for name in ("moses", "moses.metrics"):
        module = types.ModuleType(name)
        module.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = module
    sys.modules["moses.utils"] = helpers
    # Its own copies of the two scorers ask for an rdkit.six that is gone; the fragment scores are the same file.
    for package, scorer, module in (("SA_Score", "sascorer", sascorer), ("NP_Score", "npscorer", None)):
        name = f"moses.metrics.{package}"
        sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[name], scorer, module)
    import moses.metrics.utils as utils

    return utils


def properties(mol, utils, sascorer):
    bits = "".join(map(str, utils.fingerprint(mol, fp_type="morgan")))
    return [
        f"{Descriptors.MolWt(mol):.4f}",
        f"{Crippen.MolLogP(mol):.5f}",
        f"{qed(mol):.6f}",
        f"{rdMolDescriptors.CalcTPSA(mol):.3f}",
        str(rdMolDescriptors.CalcNumRings(mol)),
        str(rdMolDescriptors.CalcNumHBD(mol)),
        str(rdMolDescriptors.CalcNumHBA(mol)),
        str(rdMolDescriptors.CalcNumRotatableBonds(mol)),
        f"{sascorer.calculateScore(mol):.5f}",
        "".join(str(int(atom.GetIsAromatic())) for atom in mol.GetAtoms()),
        f"{int(bits, 2):0256x}",
        str(int(utils.mol_passes_filters(mol))),
    ]


def cos_similarity(first, second):
    """As in moses/metrics/metrics.py, which cannot be loaded without the networks behind FCD."""
    keys = sorted(set(first) | set(second))
    return 1 - cosine([first.get(k, 0) for k in keys], [second.get(k, 0) for k in keys])


def metrics(generated, reference, utils, sascorer):
    # RDKit reads the empty string as a molecule without atoms, which has no properties.
    gen = [mol for mol in map(Chem.MolFromSmiles, generated) if mol is not None and mol.GetNumAtoms()]
    ref = [Chem.MolFromSmiles(smiles) for smiles in reference]
    gen_fps, ref_fps = (utils.fingerprints(np.array(mols, dtype=object), fp_type="morgan") for mols in (gen, ref))
    canonical = [Chem.MolToSmiles(mol) for mol in gen]
    known = {Chem.MolToSmiles(mol) for mol in ref}
    values = {
        "valid": len(gen) / len(generated),
        "unique@100": len(set(canonical[:100])) / 100,
        "unique@1000": len(set(canonical[:1000])) / 1000,
        "novelty": len(set(canonical) - known) / len(set(canonical)),
        "IntDiv": 1 - utils.average_agg_tanimoto(gen_fps, gen_fps, agg="mean").mean(),
        "IntDiv2": 1 - utils.average_agg_tanimoto(gen_fps, gen_fps, agg="mean", p=2).mean(),
        "SNN": utils.average_agg_tanimoto(ref_fps, gen_fps),
        "Frag": cos_similarity(utils.compute_fragments(ref), utils.compute_fragments(gen)),
        "Scaf": cos_similarity(utils.compute_scaffolds(ref), utils.compute_scaffolds(gen)),
        "Filters": np.mean([utils.mol_passes_filters(mol) for mol in gen]),
    }
    functions = {"weight": Descriptors.MolWt, "logP": Crippen.MolLogP, "QED": qed, "SA": sascorer.calculateScore}
    for name, function in functions.items():
        values[name] = wasserstein_distance([function(mol) for mol in ref], [function(mol) for mol in gen])
    return values


def write(path, rows):
    data = ("\n".join("\t".join(row) for row in rows) + "\n").encode("ascii")
    with open(path, "wb") as plain, gzip.GzipFile("", "wb", 9, plain, mtime=0) as packed:
        packed.write(data)
    print(f"{path.name}: {len(rows)} rows")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1)
    options = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    sys.path.append(str(Path(RDConfig.RDContribDir) / "SA_Score"))
    import sascorer

    rng = random.Random(SEED)
    train, test = (sources.moses(options.wheels, split) for split in ("train", "test"))
    pubchem = sources.pubchem(options.wheels)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(options.wheels / sources.MOLSETS) as wheel:
            wheel.extractall(folder, [name for name in wheel.namelist() if name.startswith("moses/metrics/")])
        utils = molsets_utils(Path(folder), sascorer)
        rows = []
        bundled = Path(__file__).parents[2] / "src/main/resources/io/molfuse/chem/moses-25k.smi.gz"
        drug_like = gzip.open(bundled, "rt").read().split("\n")[1:-1]
        for name, molecules, size in (("moses", drug_like, 2500), ("pubchem", pubchem, 1500), ("hard", HARD, len(HARD))):
            size = size if name == "hard" else min(len(molecules), round(size * options.scale))
            for smiles in rng.sample(molecules, size):
                mol = Chem.MolFromSmiles(smiles)
                if mol is not None and mol.GetNumAtoms():
                    rows.append([name, smiles] + properties(mol, utils, sascorer))
        write(options.output / "property-golden.tsv.gz", rows)

        reference = rng.sample(test, 1000)
        generated = rng.sample(train, 800) + rng.sample(reference, 60) + ["C1CC", "c1cccc1", "CC(C)(C)(C)C", "", "N(=O"] * 4
        generated += rng.sample(generated[:800], 80) + [smiles for smiles in rng.sample(pubchem, 300) if Chem.MolFromSmiles(smiles)]
        rng.shuffle(generated)
        rows = [["generated", s] for s in generated] + [["reference", s] for s in reference]
        rows += [["value", name, repr(float(value))] for name, value in metrics(generated, reference, utils, sascorer).items()]
        write(options.output / "metric-golden.tsv.gz", rows)


if __name__ == "__main__":
    main()
