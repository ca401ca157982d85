# SPDX-License-Identifier: Apache-2.0
"""Writes the digests of SelfiesDigestTest: what the Python package selfies makes of more strings than a repository should hold.

    python make_selfies_digests.py --output selfies-digests.tsv [--check]
    python make_selfies_digests.py --show SECTION FIRST

The molecules are the bundled ones and selfies-hard.smi; strings of symbols are drawn by a generator that the test repeats. Of the
lines of results only a digest of each block is kept. --show prints a block's lines, to compare with those the test writes where a
block differs. --check has RDKit read every molecule that a random string gave, and says how many it refuses and why.

The file, columns parted by tabs:
  section  name, kind (molecules or strings), constraints, alphabet (parted by blanks), source or number of strings
  block    name of the section, number of its first line from 0, the first 16 hexadecimal digits of the lines' SHA-256
Constraints are a preset's name or entries such as C=4 parted by commas. Lines of results, columns parted by tabs, with <error> for
a result that is an error and nothing for what would follow from it:
  molecules  SMILES, its SELFIES, that decoded, the SELFIES mutated, that decoded, encoded again, decoded again
  strings    SELFIES, decoded, encoded again, decoded again
A molecule is encoded whether it obeys the constraints or not if strict encoding fails; what was decoded is encoded strictly.
"""

import argparse
import collections
import gzip
import hashlib
import sys
from pathlib import Path

import selfies as sf

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "moses-25k": ROOT / "src/main/resources/io/molfuse/chem/moses-25k.smi.gz",
    "moses-test-2k5": ROOT / "src/main/resources/io/molfuse/chem/moses-test-2k5.smi.gz",
    "hard": ROOT / "src/test/resources/io/molfuse/chem/selfies-hard.smi",
}
ERROR = "<error>"
BLOCK = 500
CUSTOM = {
    "C": 4, "C-1": 2, "N": 4, "N+1": 4, "O": 2, "O-1": 0, "S": 3, "Fe": 12, "Fe+2": 6, "Si": 6, "Si-2": 6, "B": 4, "Cl": 3, "U+6": 8,
    "?": 2,
}
MORE_SYMBOLS = [
    ".", "[nop]", "[epsilon]", "[#Ring1]", "[#Ring2]", "[=Ring3]", "[#Branch3]", "[-/Ring1]", "[/-Ring1]", "[//Ring1]", "[\\/Ring2]",
    "[\\-Ring1]", "[/\\Ring1]", "[/C]", "[\\C]", "[/N]", "[\\N]", "[C@]", "[C@@]", "[C@H1]", "[C@@H1]", "[N@+1]", "[S@@]", "[=S@]", "[13CH3]",
    "[2H]", "[=15N]", "[CH0]", "[CH2]", "[NH1]", "[NH3+1]", "[=NH1+1]", "[OH0]", "[Si]", "[=Se]", "[SeH1]", "[Na+1]", "[Cl-1]", "[Fe+2]",
    "[Xe]", "[#P]", "[#U]", "[BH1-1]", "[HH1]", "[H]", "[=I+1]", "[Zn]",
]


class Draw:
    """Knuth's 64-bit linear congruential generator (MMIX); the low half, which repeats soon, is not used."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % bound


def attempt(function, *arguments):
    """The function's result, or ERROR whatever it raises: some faults surface as KeyError or IndexError."""
    try:
        return function(*arguments)
    except Exception:
        return ERROR


def molecules(source):
    path = SOURCES[source]
    with gzip.open(path, "rt", encoding="ascii") if path.suffix == ".gz" else open(path, encoding="ascii") as lines:
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def mutated(draw, symbols, alphabet):
    """One to four symbols replaced, added or removed."""
    symbols = list(symbols)
    for _ in range(1 + draw.below(4)):
        choice, at = draw.below(3), draw.below(len(symbols) + 1)
        if choice == 0 and at < len(symbols):
            del symbols[at]
        elif choice == 1 and at < len(symbols):
            symbols[at] = alphabet[draw.below(len(alphabet))]
        else:
            symbols.insert(at, alphabet[draw.below(len(alphabet))])
    return "".join(symbols)


def there_and_back(selfies):
    result = [selfies, attempt(sf.decoder, selfies)]
    for function in (sf.encoder, sf.decoder):
        result.append("" if result[-1] in (ERROR, "") else attempt(function, result[-1]))
    return result


class Section:
    def __init__(self, name, kind, constraints, alphabet, source):
        self.name, self.kind, self.constraints, self.alphabet, self.source = name, kind, constraints, alphabet, source
        self.inputs = molecules(source) if kind == "molecules" else [None] * source

    def header(self):
        constraints = self.constraints
        if not isinstance(constraints, str):
            constraints = ",".join(f"{key}={value}" for key, value in constraints.items())
        return "\t".join(("section", self.name, self.kind, constraints, " ".join(self.alphabet), str(self.source)))

    def line(self, number):
        # Each line has its own seed, so that a block can be made without those before it.
        draw = Draw(number)
        draw.below(1)
        smiles = self.inputs[number]
        if smiles is None:
            text = "".join(self.alphabet[draw.below(len(self.alphabet))] for _ in range(1 + draw.below(60)))
            return there_and_back(text)
        selfies = attempt(sf.encoder, smiles)
        if selfies == ERROR:
            selfies = attempt(sf.encoder, smiles, False)
        if selfies == ERROR:
            return [smiles, selfies]
        return [smiles, selfies, attempt(sf.decoder, selfies)] + there_and_back(
            mutated(draw, sf.split_selfies(selfies), self.alphabet))

    def lines(self, first):
        sf.set_semantic_constraints(self.constraints)
        return [self.line(number) for number in range(first, min(first + BLOCK, len(self.inputs)))]


def sections():
    robust = {}
    for name, constraints in (("default", "default"), ("octet_rule", "octet_rule"), ("hypervalent", "hypervalent"), ("custom", CUSTOM)):
        sf.set_semantic_constraints(constraints)
        robust[name] = sorted(sf.get_semantic_robust_alphabet())
    sf.set_semantic_constraints()
    encoded = (attempt(sf.encoder, smiles, False) for smiles in molecules("hard"))
    seen = sf.get_alphabet_from_selfies(text for text in encoded if text != ERROR)
    every = sorted(set(robust["default"]) | set(MORE_SYMBOLS) | seen)
    yield Section("moses", "molecules", "default", every, "moses-25k")
    yield Section("moses-test", "molecules", "default", every, "moses-test-2k5")
    yield Section("hard", "molecules", "default", every, "hard")
    yield Section("robust", "strings", "default", robust["default"], 10_000)
    yield Section("every", "strings", "default", every, 5_000)
    for name, constraints in (("octet_rule", "octet_rule"), ("hypervalent", "hypervalent"), ("custom", CUSTOM)):
        yield Section(f"hard-{name}", "molecules", constraints, robust[name], "hard")
        yield Section(f"robust-{name}", "strings", constraints, robust[name], 2_000)
        yield Section(f"every-{name}", "strings", constraints, every, 2_000)


def refusals(lines, found):
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    for line in lines:
        smiles = line[1]
        if smiles in ("", ERROR):
            found["nothing decoded" if smiles == "" else "not decoded"] += 1
            continue
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
        if mol is None:
            found["not read"] += 1
            print("not read", smiles, file=sys.stderr)
            continue
        problems = Chem.DetectChemistryProblems(mol)
        found["; ".join(sorted({problem.Message() for problem in problems}))[:60] if problems else "valid"] += 1


def text_of(lines):
    return "".join("\t".join(line) + "\n" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--show", nargs=2, metavar=("SECTION", "FIRST"))
    options = parser.parse_args()
    if options.show:
        section = next(section for section in sections() if section.name == options.show[0])
        sys.stdout.write(text_of(section.lines(int(options.show[1]))))
        return
    if not options.output:
        parser.error("--output or --show is needed")
    rows = []
    for section in sections():
        rows.append(section.header())
        found = collections.Counter()
        errors = 0
        for first in range(0, len(section.inputs), BLOCK):
            lines = section.lines(first)
            digest = hashlib.sha256(text_of(lines).encode("ascii")).hexdigest()[:16]
            rows.append(f"block\t{section.name}\t{first}\t{digest}")
            errors += sum(ERROR in line for line in lines)
            if options.check and section.kind == "strings":
                refusals(lines, found)
        print(f"{section.name}: {len(section.inputs)} lines, {errors} with an error", dict(found.most_common(12)) or "", flush=True)
    options.output.write_text("\n".join(rows) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
