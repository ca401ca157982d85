#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the layers of the native sources by their #include lines.

    check_includes.py SOURCE_FOLDER     (src/main/cpp)

libmolfuse knows nothing of libtorch, Python or Java, its families use runtime/ but not each other, its public headers are plain
C headers that need nothing but each other, and torch/ reaches libmolfuse through the public headers alone.
"""
import pathlib
import re
import sys

FAMILIES = {"attention", "encoder_epilogue", "graph_attention", "vae_loss", "latent_concat", "reparameterize"}
FOREIGN = re.compile(r"^(ATen|torch|c10|caffe2|jni|Python|pybind11)([/.]|$)")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')


def includes(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1)


def complaint(layer, header):
    top = header.split("/")[0]
    if layer == "torch":
        if top in FAMILIES or top == "runtime":
            return "torch/ may use the public headers of libmolfuse only"
        return "libmolfuse_torch knows nothing of Java or Python" if re.match(r"^(jni|Python|pybind11)\b", header) else None
    if FOREIGN.match(header):
        return "libmolfuse knows nothing of libtorch, Python or Java"
    if layer == "include":
        return None if top == "molfuse" or header in ("stddef.h", "stdint.h") else "a public header is plain C"
    if top in FAMILIES and top != layer:
        return "families do not use each other"
    return None


def main():
    root = pathlib.Path(sys.argv[1])
    files = sorted(path for pattern in ("*.h", "*.cpp", "*.cu", "*.cuh") for path in root.rglob(pattern))
    wrong = [f"{path.relative_to(root)}:{number}: {header}: {text}"
             for path in files for number, header in includes(path)
             for text in [complaint(path.relative_to(root).parts[0], header)] if text]
    if not files:
        wrong = [f"{root}: no sources"]
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
