#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packs the working tree a second time in another folder and compares the jars with those in target/, byte by byte.

    check_reproducible.py [--native] [--offline]

    --native   builds the native libraries a second time, too, instead of copying them; takes minutes. CUDA objects come from the cache
               unless MOLFUSE_CACHE names an empty one.
    --offline  Maven's -o

Not part of the build: compiling and documenting everything again takes about as long as all that the build does beside its tests.
"""
import argparse
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

import bootstrap

ROOT = bootstrap.ROOT


def copy_tree(target):
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # not deleted
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--offline", action="store_true")
    options = parser.parse_args()
    jars = sorted((ROOT / "target").glob("molfuse-*.jar"))
    if len(jars) < 4:
        print(f"target/ holds {len(jars)} jars; run mvn package first")
        return 1
    with tempfile.TemporaryDirectory(prefix="molfuse-reproducible-") as temporary:
        # Longer than the name of this clone's folder, whatever that is.
        copy = pathlib.Path(temporary) / f"another-{ROOT.name}"
        copy_tree(copy)
        command = ["mvn", "-B", "-q", "-Dmaven.test.skip=true", "package"] + (["-o"] if options.offline else [])
        if not options.native:
            command.append("-Dmolfuse.skipNative=true")
            platform = bootstrap.pom_properties()["molfuse.platform"]
            for built in (f"classes/io/molfuse/presets/{platform}", "generated-sources/javacpp"):
                shutil.copytree(ROOT / "target" / built, copy / "target" / built)
        subprocess.run(command, cwd=copy, stdin=subprocess.DEVNULL, check=True)
        different = [jar.name for jar in jars if digest(jar) != digest(copy / "target" / jar.name)]
        for jar in jars:
            print(f"{'differs' if jar.name in different else 'same   '} {digest(jar)} {jar.name}")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
