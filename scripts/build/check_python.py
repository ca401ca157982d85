#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs src/test/python on a libmolfuse_torch with a Python that has PyTorch of the version it was built for: $MOLFUSE_PYTHON, which must
have it then, or python3. Without one, says why and ends with 77, by which CTest knows a skipped test.

    check_python.py [--reason] LIBRARY     --reason: only says whether the tests will run, and with what
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77
# Run by the other Python. Tests are of the CPU; a GPU must not make them differ.
PROBE = "import sys; sys.path.insert(0, sys.argv[1]); import molfuse_torch, torch; sys.exit(molfuse_torch.mismatch(sys.argv[2]))"


def reason_not_to(python, library):
    if not library.is_file():
        return f"there is no {library}"
    if python is None:
        return "there is no python3"
    try:
        probe = subprocess.run([python, "-c", PROBE, ROOT / "src/main/python", library], capture_output=True, text=True)
    except OSError as failure:
        return f"{python}: {failure.strerror}"
    if probe.returncode == 0:
        return None
    return f"{python}: {probe.stderr.strip().splitlines()[-1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reason", action="store_true")
    parser.add_argument("library", type=pathlib.Path)
    options = parser.parse_args()
    asked = os.environ.get("MOLFUSE_PYTHON")
    python = asked or shutil.which("python3")
    why = reason_not_to(python, options.library)
    if why:
        print(f"molfuse: tests of the operators in Python: {'failed' if asked else 'skipped'}: {why}", flush=True)
        return 0 if options.reason else 1 if asked else SKIPPED
    print(f"molfuse: tests of the operators in Python: with {python}", flush=True)
    if options.reason:
        return 0
    with tempfile.TemporaryDirectory() as cache:
        environment = dict(os.environ, MOLFUSE_TORCH_LIBRARY=str(options.library.resolve()), CUDA_VISIBLE_DEVICES="",
                           TORCHINDUCTOR_CACHE_DIR=cache)
        tests = sorted((ROOT / "src/test/python").glob("test_*.py"))
        return max(subprocess.run([python, test], env=environment).returncode for test in tests)


if __name__ == "__main__":
    sys.exit(main())
