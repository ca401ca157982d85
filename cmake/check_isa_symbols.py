#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that objects compiled for one instruction set define only symbols of their own namespace.

    check_isa_symbols.py --nm NM --namespace molfuse::avx512 OBJECT...

A weak symbol outside it (an inline function or template of the C++ library, say) exists in several copies, of which the linker
keeps any: the one for AVX-512 would then run, and crash, on machines without. Local symbols cannot be mixed up.
"""
import argparse
import re
import subprocess
import sys


def foreign_symbols(nm, namespace, path):
    listing = subprocess.run([nm, "-C", "--defined-only", "--extern-only", path], check=True, stdout=subprocess.PIPE, text=True).stdout
    # Templates are listed with their return type, static data of inline functions with a prefix such as "guard variable for".
    own = re.compile(rf"^(?:[^<(]*[ *&])?{re.escape(namespace)}::")
    for line in listing.splitlines():
        address, kind, name = line.split(" ", 2)
        # The personality routine's reference is data of the C++ runtime's, the same in every object.
        if not own.match(name) and not name.startswith("DW.ref."):
            yield kind, name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nm", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("objects", nargs="+")
    options = parser.parse_args()
    failed = False
    for path in options.objects:
        for kind, name in foreign_symbols(options.nm, options.namespace, path):
            failed = True
            print(f"{path}: {kind} {name} is not in {options.namespace}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
