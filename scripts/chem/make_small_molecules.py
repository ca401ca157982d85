# SPDX-License-Identifier: Apache-2.0
"""Writes 11,390,625 small molecules, nearly all different, to try out `molfuse prepare` with more than ten million:

    python make_small_molecules.py many.smi
"""

import itertools
import sys

UNITS = ["C", "N", "O", "S", "C(C)", "C(=O)", "C(F)", "C(O)", "C(N)", "C=C", "C#C", "C(Cl)", "N(C)", "C1CC1", "C(C#N)"]

with open(sys.argv[1], "w", encoding="ascii") as file:
    for units in itertools.product(UNITS, repeat=5):
        # The bromine makes the two ends differ, so that no molecule is another one read backwards.
        start = "Br" + "".join(units)
        file.writelines(start + last + "\n" for last in UNITS)
