# SPDX-License-Identifier: Apache-2.0
"""Writes the golden vectors of the SELFIES tests: what the Python package selfies makes of real, random and broken strings.

    python make_selfies_golden.py --wheels DIR --output selfies-golden.tsv.gz [--scale 1]

DIR holds the wheels named in requirements.txt. The same versions give the same bytes. --scale multiplies the number of each kind
of string, for checks on more than is committed.

Columns, parted by tabs, no header: kind, preset, strict (0 or 1), smiles, selfies, decoded.
  smiles  smiles is encoded to selfies, and that decoded
  selfies selfies is decoded; the column smiles is empty
A result that is an error is written <error>; what would follow from it is empty.
"""

import argparse
import gzip
import random
import re
from pathlib import Path

import selfies as sf
from rdkit import Chem, RDLogger

import sources

ERROR = "<error>"
SEED = 20240117

MORE_SYMBOLS = [
    "[nop]", "[epsilon]", ".", "[#Ring1]", "[#Ring2]", "[=Ring3]", "[#Branch3]", "[/C]", "[\\C]", "[/N]", "[\\O]", "[-/Ring1]",
    "[/-Ring1]", "[//Ring1]", "[\\/Ring2]", "[\\-Ring1]", "[C@]", "[C@@]", "[C@@H1]", "[C@H1]", "[N@+1]", "[S@@]", "[13CH3]", "[2H]",
    "[NH1]", "[=NH1+1]", "[NH3+1]", "[OH0]", "[CH0]", "[CH2]", "[Si]", "[=Se]", "[SeH1]", "[Na+1]", "[Cl-1]", "[Fe+2]", "[Xe]",
    "[#N+1]", "[O-1]", "[=O+1]", "[Zn]", "[BH1-1]", "[=PH1]", "[015N]", "[HH1]", "[H]", "[He]", "[=I+1]",
]
BROKEN_SYMBOLS = [
    "[CH9]", "[X]", "[c]", "[=]", "[]", "[Branch4]", "[Branch0]", "[Ring4]", "[--Ring1]", "[Expl=Ring1]", "[Branch1_2]", "[C", "C]",
    "[C+10]", "[CH]", "[C@@@]", "[=Ts]", "[epsilons]", "x[C]", "[C]x[N]", "[Cexpl]", "[=/C]", "[C+]", "[$C]", "[*]", "[ C]", "..",
]


def attempt(function, *arguments):
    """The function's result, or ERROR whatever it raises: some faults surface as KeyError or IndexError."""
    try:
        return function(*arguments)
    except Exception:
        return ERROR


def row(kind, preset, strict, smiles="", selfies=""):
    if kind == "smiles":
        selfies = attempt(sf.encoder, smiles, strict)
    decoded = "" if selfies == ERROR else attempt(sf.decoder, selfies)
    return "\t".join((kind, preset, str(int(strict)), smiles, selfies, decoded))


def high_ring_numbers(smiles, first):
    """The same molecule with ring number d written %(first + d)."""
    parts = re.split(r"(\[[^\]]*\]|%\d\d)", smiles)
    return "".join(p if p[:1] in ("[", "%") else re.sub(r"\d", lambda d: f"%{first + int(d[0])}", p) for p in parts)


def rewritten(rng, smiles):
    """The molecule in another atom order, aromatic or kekulised; None where RDKit refuses it."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        return None
    order = list(range(mol.GetNumAtoms()))
    rng.shuffle(order)
    mol = Chem.RenumberAtoms(mol, order)
    kekule = rng.random() < 0.2
    if kekule:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    return Chem.MolToSmiles(mol, canonical=False, kekuleSmiles=kekule, allHsExplicit=rng.random() < 0.05)


def with_stereo(rng, smiles):
    """The molecule with random stereo marks at its centres and double bonds: the sources hold few."""
    from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions

    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        return None
    options = StereoEnumerationOptions(maxIsomers=1, rand=rng.randrange(1 << 30), unique=False)
    try:
        isomer = next(iter(EnumerateStereoisomers(mol, options=options)))
    except (StopIteration, RuntimeError):
        return None
    order = list(range(isomer.GetNumAtoms()))
    rng.shuffle(order)
    text = Chem.MolToSmiles(Chem.RenumberAtoms(isomer, order), canonical=False)
    return text if any(c in text for c in "@/\\") else None


def mutated(rng, text, letters):
    """The text with one to three characters replaced, removed or added."""
    chars = list(text)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(chars) + 1)
        choice = rng.random()
        if choice < 0.4 and at < len(chars):
            chars[at] = rng.choice(letters)
        elif choice < 0.7 and at < len(chars):
            del chars[at]
        else:
            chars.insert(at, rng.choice(letters))
        if not chars:
            chars = [rng.choice(letters)]
    return "".join(chars)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    rng = random.Random(SEED)
    moses = sources.moses(options.wheels, "test")
    pubchem = sources.pubchem(options.wheels)

    def count(base):
        return round(base * options.scale)

    def take(source, base):
        return rng.sample(source, min(count(base), len(source)))

    def made(function, source, base):
        results = (function(rng, rng.choice(source)) for _ in range(4 * count(base)))
        return [text for text in results if text][: count(base)]

    real = take(moses, 2000) + take(pubchem, 2500)
    real += made(rewritten, pubchem, 1000) + made(rewritten, moses, 300) + made(with_stereo, pubchem, 1000)
    unusual = [s for s in pubchem if "." in s or "[" in s]
    real += take(unusual, 800)
    real += [high_ring_numbers(s, rng.choice((0, 8, 10, 80))) for s in made(rewritten, pubchem, 300)]
    real += [".".join(rng.sample(moses, 3)) for _ in range(count(50))]
    # Long chains and many rings: numbers of two and three symbols, ring numbers past 99.
    big = [s for s in pubchem if len(s) > 120]
    real += take(big, 150)
    real += ["C" * n + "(" + "C" * m + ")O" for n, m in ((1, 15), (1, 16), (2, 17), (1, 256), (1, 257), (3, 300), (1, 4096))]
    real += ["C1" + "C" * n + "1" for n in (1, 2, 15, 16, 17, 255, 256, 257, 4000)]
    real += ["".join(f"C%{i:02d}" for i in range(10, 100)) + "".join(f"C%{i:02d}" for i in range(10, 100))]
    real += ["C1CC1" * 120, "c1ccccc1" * 60]

    letters = "CNOScnos()[]=#123%./\\@+-HFlBr:*$eipI0 "
    broken = [mutated(rng, rng.choice(real[:-12]), letters) for _ in range(count(2500))]
    broken += [
        "", ".", "C.", ".C", "C..C", "()", "(C)", "C()", "C(C", "C)C", "C1", "C11", "C1C1", "C=", "=C", "C==C", "C=(C)", "C(=)C", "C(1C)C1",
        "C%1", "C%", "C%01CC1", "C%01CC%01", "C=1CC#1", "C/1CC\\1", "C-1CC=1", "[", "[]", "[C", "[CH10]", "[C@@@H]", "[C@TH1](F)(Cl)Br",
        "[cl]", "[na+]", "[Xx]", "[H]", "[H2]", "[HH]", "[2H]O", "[13CH4]", "[0C]", "[013C]", "[C+0]", "[C-0]", "[C++]", "[C+-]", "[C--]",
        "[C+2]", "[C:1]", "[C:]", "[CH3:12]C", "[Nh]", "[Ts]", "*", "[*]", "C$C", "C~C", "C:C", "F:C", "c", "cc", "c1cccc1", "c1ccc1",
        "[cH-]1cccc1", "[nH]1cccc1", "n1cccc1", "c1cc[se]c1", "c1cc[te]c1", "b1ccccc1", "[al]1cccc1", "[si]1ccccc1", "[as]1ccccc1",
        "c1cc2ccc3ccc4ccc5ccc6ccc1c1c2c3c4c5c61", "C(C)(C)(C)(C)C", "[C]", "[CH3]", "[N+](C)(C)(C)(C)C", "FF(F)F", "C1CC1(C)1",
        "O=Cl(=O)=O",
        "c1ccccc1-c1ccccc1", "c1ccccc1c1ccccc1", "c:1:c:c:c:c:c1", "C1=CC=CC=C1.[Na+].[Cl-]", "F/C=C/F", "F/C=C\\F", "F\\C=C1/CCC1",
        "C/C=C/1CCC1", "N[C@@H](C)C(=O)O", "[C@]12(F)CCC1CC2", "C1C[C@]12CC2", "[C@@]1(F)(Cl)CC1", "c1cc%10ccc1%10",
    ]

    base = sorted(sf.get_semantic_robust_alphabet())
    common = sorted(sf.get_alphabet_from_selfies(s for s in (attempt(sf.encoder, m) for m in take(pubchem, 2000)) if s != ERROR))
    everything = base + common + MORE_SYMBOLS

    def symbols(alphabet, most):
        return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, most)))

    def garbled():
        text = symbols(everything, 30)
        if rng.random() < 0.5:
            return mutated(rng, text, "[]CNRingBrach123=#.+-@Hx")
        cut = rng.choice([m.end() for m in re.finditer(r"\]", text)] or [0])
        return text[:cut] + rng.choice(BROKEN_SYMBOLS) + text[cut:]

    lines = [row("smiles", "default", True, smiles=s) for s in real + broken]
    refused = [line.split("\t")[3] for line in lines if line.split("\t")[4] == ERROR]
    lines += [row("smiles", "default", False, smiles=s) for s in refused]
    lines += [row("selfies", "default", True, selfies=symbols(base, 60)) for _ in range(count(1200))]
    lines += [row("selfies", "default", True, selfies=symbols(everything, 80)) for _ in range(count(1300))]
    lines += [row("selfies", "default", True, selfies=symbols(base, 1200)) for _ in range(count(20))]
    lines += [row("selfies", "default", True, selfies=garbled()) for _ in range(count(900))]
    lines += [row("selfies", "default", True, selfies=s) for s in BROKEN_SYMBOLS + MORE_SYMBOLS + ["", "abc", "[", "]", "[]"]]
    for preset in ("octet_rule", "hypervalent"):
        sf.set_semantic_constraints(preset)
        lines += [row("smiles", preset, True, smiles=s) for s in take(unusual, 200) + rng.sample(refused, min(100, len(refused)))]
        alphabet = sorted(sf.get_semantic_robust_alphabet())
        lines += [row("selfies", preset, True, selfies=symbols(alphabet, 60)) for _ in range(count(300))]
    sf.set_semantic_constraints()

    data = ("\n".join(lines) + "\n").encode("ascii")
    with open(options.output, "wb") as plain, gzip.GzipFile("", "wb", 9, plain, mtime=0) as packed:
        packed.write(data)
    errors = sum(ERROR in line for line in lines)
    print(f"{len(lines)} lines, {len(real)} molecules, {errors} with an error")


if __name__ == "__main__":
    main()
