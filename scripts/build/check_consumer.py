#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds and runs examples/maven-consumer outside the source tree, on the packed artifacts only; then resolves its GPU variant.

    check_consumer.py --repository DIR --work DIR [--maven-repository DIR] [--offline true|false] [--skip true|false]...

    --repository        what is to be published, as a Maven repository on disk
    --work              for the local repository that the example's Maven uses; kept between runs
    --maven-repository  local repository that all but molfuse is taken from
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import bootstrap
import check_packages

EXAMPLE = bootstrap.ROOT / "examples" / "maven-consumer"


def local_repository(work, maven_repository, packed):
    """A local repository of links into another one, whose molfuse is the packed one."""
    folder = work / "repository"
    own = folder / "io" / "molfuse"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(packed / "io" / "molfuse", own)
    for source, target in ((maven_repository, folder), (maven_repository / "io", folder / "io")):
        for path in source.iterdir() if source.is_dir() else ():
            link = target / path.name
            if link != own.parent and link != own and not link.exists():
                link.unlink(missing_ok=True)  # one that points nowhere
                link.symlink_to(path.absolute())
    return folder


class Maven:
    def __init__(self, options, version):
        repository = local_repository(options.work, pathlib.Path(options.maven_repository or bootstrap.default_maven_repository()),
                                      options.repository)
        self.command = ["mvn", "-B", "-q", f"-Dmaven.repo.local={repository.absolute()}", f"-Dmolfuse.version={version}"]
        if options.offline == "true":
            self.command.append("-o")

    def run(self, folder, *words):
        return subprocess.run([*self.command, *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)


def check_run(maven, folder):
    done = maven.run(folder, "compile", "exec:exec")
    print(done.stdout, end="")
    if done.returncode != 0:
        raise bootstrap.Failure("examples/maven-consumer does not build or does not train")
    if len(re.findall(r"^step \d+: loss ", done.stdout, re.MULTILINE)) < 2:
        raise bootstrap.Failure("examples/maven-consumer printed no losses: did it run?")
    print("molfuse: examples/maven-consumer compiled and trained outside the source tree, on the packed artifacts")


def check_gpu(maven, folder, offline):
    """Resolves the GPU variant by POMs, and asks for the libraries by the files of their checksums: the jars are gigabytes."""
    pom = folder / "pom.xml"
    text = pom.read_text()
    if text.count("<artifactId>molfuse-platform</artifactId>") != 1:
        raise bootstrap.Failure("examples/maven-consumer does not depend on molfuse-platform")
    pom.write_text(text.replace("<artifactId>molfuse-platform</artifactId>", "<artifactId>molfuse-platform-gpu</artifactId>"))
    versions = bootstrap.pom_properties()
    platform = versions["molfuse.platform"]
    plugin = f"org.apache.maven.plugins:maven-dependency-plugin:{versions['maven-dependency-plugin.version']}"
    tree = folder / "tree.txt"
    done = maven.run(folder, f"{plugin}:tree", f"-DoutputFile={tree}")
    if done.returncode != 0:
        if offline:
            print("molfuse: the GPU variant is not resolved: Maven is offline and has not the POMs of org.bytedeco:cuda")
            return
        raise bootstrap.Failure(f"the GPU variant does not resolve\n{done.stdout}")
    found = set(re.findall(r"org\.bytedeco:[^\s]+", tree.read_text()))
    wanted = {f"org.bytedeco:pytorch:jar:{platform}-gpu:{versions['pytorch.version']}:runtime",
              f"org.bytedeco:cuda:jar:{platform}:{versions['cuda.version']}:runtime"}
    if not wanted <= found or any(f":{platform}:" in name and ":pytorch:" in name for name in found):
        raise bootstrap.Failure("the GPU variant resolves to\n  " + "\n  ".join(sorted(found)))
    print("molfuse: with molfuse-platform-gpu, Maven chooses the CUDA build of libtorch (POMs only; no library was fetched)")
    if offline:
        print("molfuse: that its jars can be had was not asked: Maven is offline")
        return
    for name in sorted(wanted):
        group, artifact, _, classifier, version, _ = name.split(":")
        done = maven.run(folder, f"{plugin}:get", f"-Dartifact={group}:{artifact}:{version}:jar.sha1:{classifier}", "-Dtransitive=false")
        if done.returncode != 0:
            raise bootstrap.Failure(f"{name} cannot be had\n{done.stdout}")
    print("molfuse: its jars can be had (checksums only)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--maven-repository")
    parser.add_argument("--offline", default="false")
    parser.add_argument("--skip", action="append", default=[], help="true: do nothing (for Maven's skipTests)")
    options = parser.parse_args()
    if "true" in options.skip:
        print("molfuse: the Maven consumer is not run: tests are skipped")
        return 0
    try:
        version = check_packages.Packages(options.repository, "molfuse").version
        if f"<molfuse.version>{version}<" not in (EXAMPLE / "pom.xml").read_text():
            raise bootstrap.Failure(f"{EXAMPLE / 'pom.xml'} is not for version {version}")
        options.work.mkdir(parents=True, exist_ok=True)
        maven = Maven(options, version)
        with tempfile.TemporaryDirectory(prefix="molfuse-consumer-") as temporary:
            folder = pathlib.Path(temporary) / "maven-consumer"
            shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("target"))
            check_run(maven, folder)
            check_gpu(maven, folder, options.offline == "true")
        print("molfuse: no Gradle build is run: Gradle is not among what the build fetches. check_packages.py holds the POMs to what Gradle reads")
    except bootstrap.ERRORS as failure:
        bootstrap.say(str(failure))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
