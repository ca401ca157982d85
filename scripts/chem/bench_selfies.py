# SPDX-License-Identifier: Apache-2.0
"""How much faster the SELFIES codec is than the Python package selfies, per core, on the bundled molecules.

    python bench_selfies.py [--java-options "-XX:+UseSerialGC -Xmx1g"] [--seconds 3] CLASSPATH

CLASSPATH holds molfuse's classes and test classes and its dependencies. Both sides are measured in processor time, Java's with the
time of its collector and after warming up; Python's is the best of three passes over the first 1500 molecules. "tokenise" is
splitting and looking up of numbers.
"""

import argparse
import gzip
import subprocess
import tempfile
import time
from pathlib import Path

import selfies as sf

BUNDLED = Path(__file__).resolve().parents[2] / "src/main/resources/io/molfuse/chem/moses-25k.smi.gz"
MOLECULES = 10_000
PYTHON_MOLECULES = 1_500


def microseconds(function, texts):
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        for text in texts:
            function(text)
        best = min(best, time.process_time() - begin)
    return 1e6 * best / len(texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classpath")
    parser.add_argument("--java-options", default="-XX:+UseSerialGC -Xmx1g")
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    with gzip.open(BUNDLED, "rt", encoding="ascii") as lines:
        smiles = [line.strip() for line in lines if not line.startswith("#")][:MOLECULES]
    few = smiles[:PYTHON_MOLECULES]
    encoded = [sf.encoder(text) for text in few]
    alphabet = sorted(sf.get_alphabet_from_selfies(encoded))
    numbers = {symbol: number for number, symbol in enumerate(alphabet)}
    python = {
        "encode": microseconds(sf.encoder, few),
        "decode": microseconds(sf.decoder, encoded),
        "split": microseconds(lambda text: list(sf.split_selfies(text)), encoded),
        "tokenise": microseconds(lambda text: [numbers[symbol] for symbol in sf.split_selfies(text)], encoded),
    }
    with tempfile.NamedTemporaryFile("w", suffix=".smi", encoding="ascii") as file:
        file.write("\n".join(smiles) + "\n")
        file.flush()
        command = ["java", *options.java_options.split(), "-cp", options.classpath, "io.molfuse.chem.SelfiesSpeed", file.name,
                   str(options.seconds)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print("microseconds a molecule   Python     Java    ratio")
    for line in found.splitlines():
        name, java = line.split("\t")
        print(f"{name:24} {python[name]:8.2f} {float(java):8.3f} {python[name] / float(java):8.1f}")


if __name__ == "__main__":
    main()
