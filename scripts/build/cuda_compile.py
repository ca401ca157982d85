#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles one CUDA source, or takes the object from the cache if nothing that it is made of has changed.

    cuda_compile.py --nvcc NVCC --output OBJECT --depfile FILE SOURCE [FLAG...]

ccache does this for C++; it is not everywhere, and a build folder is made afresh more often than a kernel is changed. The key is made of
the compiler's version, the flags and the contents of every file that the compiler would read, paths of this clone left out.
"""
import argparse
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import bootstrap


def dependencies(nvcc, source, flags):
    found = subprocess.run([nvcc, "-M", *flags, source], cwd=bootstrap.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        sys.exit(found.returncode)
    words = found.stdout.replace("\\\n", " ").split(":", 1)[1].split()
    return [bootstrap.ROOT / word for word in words]


def stable_names(source, temporary):
    """Flags that keep the process's number and the clone's folder out of the object: out of the names of intermediate files, which the
    symbol table lists, and out of the hash that stands for a source's anonymous namespace."""
    return ["-Xcudafe", f"--orig_src_path_name={source}", "--keep", "--keep-dir", temporary]


def key_of(nvcc, source, flags, files):
    root = str(bootstrap.ROOT)
    version = subprocess.run([nvcc, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    digest = hashlib.sha256()
    for word in [version, *flags, *stable_names(source, "."), str(source)]:
        digest.update(word.replace(root, ".").encode() + b"\0")
    # The toolkit's and the system's headers are known by their compiler's version; reading them all would take longer than it saves.
    own = sorted({path.resolve() for path in files if bootstrap.ROOT in path.resolve().parents})
    for path in own:
        digest.update(str(path.relative_to(bootstrap.ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--depfile", required=True, type=pathlib.Path)
    parser.add_argument("source")
    options, flags = parser.parse_known_args()
    # Named from the project's root: the compiler writes the names into what it makes, which shall be the same wherever it is built.
    options.source = os.path.relpath(options.source, bootstrap.ROOT)
    flags = [re.sub(r"^-I(.*)", lambda match: "-I" + os.path.relpath(match.group(1), bootstrap.ROOT), flag) for flag in flags]
    options.output, options.depfile = options.output.absolute(), options.depfile.absolute()
    files = dependencies(options.nvcc, options.source, flags)
    options.depfile.write_text(f"{options.output}: " + " \\\n  ".join(map(str, files)) + "\n")
    folder = bootstrap.default_cache() / "cuda-objects"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / (key_of(options.nvcc, options.source, flags, files) + ".o")
    if not kept.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            made = pathlib.Path(temporary) / "object.o"
            status = subprocess.run([options.nvcc, "-c", *flags, *stable_names(options.source, temporary), "-o", str(made), options.source],
                                    cwd=bootstrap.ROOT, stdin=subprocess.DEVNULL).returncode
            if status != 0:
                return status
            made.rename(kept)
    else:
        os.utime(kept)  # so that what is not used can be told by its age
    shutil.copyfile(kept, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
