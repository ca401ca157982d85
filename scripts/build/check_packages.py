#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what a build leaves to be published: the contents of the jars, the licence texts in them, the POMs and the SBOM.

    check_packages.py --repository DIR [--offline true|false] [--skip true|false]...
"""
import argparse
import json
import pathlib
import sys
import xml.etree.ElementTree
import zipfile

import bootstrap

LICENSES = bootstrap.ROOT / "src" / "main" / "licenses"
POM = "{http://maven.apache.org/POM/4.0.0}"


class Packages:
    """The artifacts of one version in a Maven repository on disk."""

    def __init__(self, repository, artifact):
        versions = [path for path in (repository / "io" / "molfuse" / artifact).iterdir() if path.is_dir()]
        if len(versions) != 1:
            raise bootstrap.Failure(f"{repository} holds {len(versions)} versions of {artifact}, expected 1")
        self.version = versions[0].name
        pom = [path for path in versions[0].glob("*.pom")]
        if len(pom) != 1:
            raise bootstrap.Failure(f"{versions[0]} holds {len(pom)} POMs, expected 1")
        self.pom = pom[0]
        self.stem = str(self.pom)[:-len(".pom")]

    def file(self, suffix):
        path = pathlib.Path(self.stem + suffix)
        if not path.is_file():
            raise bootstrap.Failure(f"{path.name} is missing")
        return path


def texts(folder):
    return {f"META-INF/licenses/{folder}/{path.name}": path.read_bytes() for path in (LICENSES / folder).iterdir()}


def jar(path, needed, foreign, licenses, wrong):
    """Complains about entries that are missing, belong elsewhere or, of texts, differ."""
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        wrong += [f"{path.name} has no {name}" for name in needed if name not in names]
        wrong += [f"{path.name} holds {name}" for name in sorted(names) if foreign(name)]
        for name, text in licenses.items():
            if name not in names or archive.read(name) != text:
                wrong.append(f"{path.name}: {name} is missing or not the text of src/main/licenses")
        # Paths of the machine that built it are of no use to anybody, and make two builds differ.
        for root in {str(bootstrap.ROOT), str(bootstrap.default_cache())}:
            wrong += [f"{path.name}: {name} names the folder {root}" for name in sorted(names) if root.encode() in archive.read(name)]


def check_jars(packages, platform, wrong):
    legal = {f"META-INF/{name}": (bootstrap.ROOT / name).read_bytes() for name in ("LICENSE", "NOTICE")}
    native = [f"io/molfuse/presets/{platform}/lib{name}.so" for name in ("molfuse", "molfuse_torch", "jnimolfuse")]
    data, compiled = texts("data"), texts("native")
    jar(packages.file(".jar"), ["io/molfuse/ops/Attention.class", "io/molfuse/presets/MolfuseNative.class"],
        lambda name: name.endswith((".so", ".java")) or name in compiled, legal | data, wrong)
    jar(packages.file(f"-{platform}.jar"), native,
        lambda name: not name.startswith("META-INF/") and name not in native or name in data, legal | compiled, wrong)
    jar(packages.file("-sources.jar"), ["io/molfuse/ops/Attention.java", "io/molfuse/presets/MolfuseNative.java"],
        lambda name: name.endswith((".so", ".class")), legal | data, wrong)
    jar(packages.file("-javadoc.jar"), ["index.html", "io.molfuse/io/molfuse/ops/Attention.html"],
        lambda name: name.endswith((".so", ".class")), {}, wrong)
    notice = (bootstrap.ROOT / "NOTICE").read_text()
    wrong += [f"NOTICE does not name {name}" for name in sorted(data | compiled) if name not in notice]


def dependencies(pom):
    root = xml.etree.ElementTree.parse(pom).getroot()
    found = root.findall(f"{POM}dependencies/{POM}dependency")
    return root, [{child.tag[len(POM):]: child.text for child in dependency} for dependency in found]


def check_pom(pom, wrong):
    """Every build tool reads these the same way: Gradle knows no profiles, and what -D sets is not the publisher's word."""
    root, found = dependencies(pom)
    for element in ("parent", "profiles", "dependencyManagement", "build", "properties", "repositories"):
        if root.find(POM + element) is not None:
            wrong.append(f"{pom.name} has <{element}>")
    if "${" in pom.read_text():
        wrong.append(f"{pom.name} refers to a property")
    for dependency in found:
        name = f"{pom.name}: {dependency['artifactId']}"
        if "version" not in dependency:
            wrong.append(f"{name} has no version")
        if dependency.get("scope", "compile") not in ("compile", "runtime"):
            wrong.append(f"{name} has the scope {dependency['scope']}")
    return found


def check_sbom(sbom, found, wrong):
    components = json.loads(sbom.read_text())["components"]
    wrong += [f"{sbom.name}: {component['purl']} has no licence" for component in components if not component.get("licenses")]
    listed = {(component["group"], component["name"], component["version"]) for component in components}
    wrong += [f"{sbom.name} does not list {dependency['artifactId']}" for dependency in found
              if (dependency["groupId"], dependency["artifactId"], dependency["version"]) not in listed]


def check(repository, offline):
    platform = bootstrap.pom_properties()["molfuse.platform"]
    wrong = []
    packages = Packages(repository, "molfuse")
    check_jars(packages, platform, wrong)
    found = check_pom(packages.pom, wrong)
    wrong += [f"{packages.pom.name}: {dependency['artifactId']} of {dependency['classifier']} is not optional" for dependency in found
              if "classifier" in dependency and dependency.get("optional") != "true"]
    if offline and not pathlib.Path(f"{packages.stem}-cyclonedx.json").is_file():
        print("molfuse: no SBOM: CycloneDX's plugin makes none where Maven is offline")
    else:
        check_sbom(packages.file("-cyclonedx.json"), found, wrong)
    for artifact in ("molfuse-platform", "molfuse-platform-gpu"):
        found = check_pom(Packages(repository, artifact).pom, wrong)
        if not any(dependency["artifactId"] == "molfuse" and dependency.get("classifier") == platform for dependency in found):
            wrong.append(f"{artifact} does not depend on molfuse's native libraries")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", required=True, type=pathlib.Path)
    parser.add_argument("--offline", default="false", help="true: Maven is, and an SBOM may be missing")
    parser.add_argument("--skip", action="append", default=[], help="true: do nothing (for Maven's skipTests)")
    options = parser.parse_args()
    if "true" in options.skip:
        print("molfuse: the packages are not checked: tests are skipped")
        return 0
    try:
        wrong = check(options.repository, options.offline == "true")
    except bootstrap.ERRORS as failure:
        wrong = [str(failure)]
    if wrong:
        print("\n".join(wrong))
    else:
        print("molfuse: the packages hold what they should")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
