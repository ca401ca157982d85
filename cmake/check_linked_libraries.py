#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what our shared libraries ask the dynamic loader for.

    check_linked_libraries.py --readelf READELF LIBRARY...

Beside the C and C++ runtimes they may need each other and the two libraries that the CPU and the GPU build of libtorch share;
a CUDA library among them would keep them from loading on a machine without. Their search path is their own folder.
"""
import argparse
import pathlib
import re
import subprocess
import sys

RUNTIME = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "libgomp.so.1", "libdl.so.2", "libpthread.so.0",
           "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
LIBTORCH = {"libtorch_cpu.so", "libc10.so"}
ALLOWED = {
    "libmolfuse.so": RUNTIME,
    "libmolfuse_torch.so": RUNTIME | LIBTORCH | {"libmolfuse.so"},
    "libjnimolfuse.so": RUNTIME | LIBTORCH | {"libmolfuse_torch.so"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readelf", required=True)
    parser.add_argument("libraries", nargs="+", type=pathlib.Path)
    options = parser.parse_args()
    wrong = []
    for library in options.libraries:
        section = subprocess.run([options.readelf, "-d", library], check=True, stdout=subprocess.PIPE, text=True).stdout
        needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", section))
        if not needed:
            wrong.append(f"{library.name}: readelf lists nothing needed")
        # Ours have a version behind the name, but for those of the jar.
        needed = {re.sub(r"^(libmolfuse(?:_torch)?\.so)[.0-9]*$", r"\1", name) for name in needed}
        wrong += [f"{library.name} needs {name}" for name in sorted(needed - ALLOWED[re.sub(r"\.so[.0-9]*$", ".so", library.name)])]
        paths = re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", section)
        if paths != ["$ORIGIN"]:
            wrong.append(f"{library.name}: search path is {paths}")
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
