#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lays out what is to be published as a Maven repository on disk, with checksums.

    make_repository.py --target DIR --version VERSION --repository DIR
"""
import argparse
import hashlib
import pathlib
import shutil
import sys

import bootstrap

POMS = ("molfuse", "molfuse-platform", "molfuse-platform-gpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, type=pathlib.Path)
    parser.add_argument("--version", required=True)
    parser.add_argument("--repository", required=True, type=pathlib.Path)
    options = parser.parse_args()
    shutil.rmtree(options.repository, ignore_errors=True)
    stem = f"molfuse-{options.version}"
    suffixes = (".jar", f"-{bootstrap.pom_properties()['molfuse.platform']}.jar", "-sources.jar", "-javadoc.jar", "-cyclonedx.json")
    files = [("molfuse", options.target / f"{stem}{suffix}", f"{stem}{suffix}") for suffix in suffixes]
    files += [(name, options.target / "packaging" / f"{name}.pom", f"{name}-{options.version}.pom") for name in POMS]
    for artifact, source, name in files:
        # What a build was told to leave out, such as the documentation, is missed by check_packages.py.
        if not source.is_file():
            continue
        target = options.repository / "io" / "molfuse" / artifact / options.version / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        for algorithm in ("md5", "sha1"):
            target.with_name(f"{name}.{algorithm}").write_text(hashlib.new(algorithm, target.read_bytes()).hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
