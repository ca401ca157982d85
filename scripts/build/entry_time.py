#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the time that the entries of the jar of native libraries are to bear: made of the contents of the libraries in a folder.

    entry_time.py DIR

JavaCPP copies libraries from a jar into a cache and knows them again by the jar's name, their size and their time. With one time for all
builds it would take a library of an earlier build for the new one; with the time of the build, no two jars would be the same.
"""
import datetime
import hashlib
import pathlib
import sys

FIRST = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
YEARS_20 = 20 * 365 * 24 * 3600


def entry_time(folder):
    libraries = sorted(folder.glob("*.so"))
    if not libraries:
        sys.exit(f"{folder} holds no native library; build without -Dmolfuse.skipNative=true once")
    digest = hashlib.sha256()
    for library in libraries:
        digest.update(library.name.encode() + b"\0" + hashlib.sha256(library.read_bytes()).digest())
    # The format of a jar knows even seconds only.
    seconds = int.from_bytes(digest.digest()[:8], "big") % YEARS_20 // 2 * 2
    return (FIRST + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    print(entry_time(pathlib.Path(sys.argv[1])))
