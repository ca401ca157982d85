#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs JavaCPP's parser and generator: C++ header -> Java class -> JNI C++.

Outputs are replaced only when their content changed, so that neither the C++ nor the Java compiler works in vain.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

PRESET = "io.molfuse.presets.molfuse"
GLOBAL = "io.molfuse.presets.MolfuseNative"


def run(*command):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def replace_if_different(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_file() or source.read_bytes() != target.read_bytes():
        shutil.copyfile(source, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--java", required=True)
    parser.add_argument("--javac", required=True)
    parser.add_argument("--classpath", required=True, help="jars of JavaCPP and the libtorch preset, separated by ;")
    parser.add_argument("--include", required=True, help="folder of the header that the preset names")
    parser.add_argument("--sources", required=True, type=pathlib.Path, help="root of the Java sources")
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--cpp", required=True, type=pathlib.Path, help="folder for the generated C++")
    parser.add_argument("--generated-java", required=True, type=pathlib.Path, help="root for the generated Java")
    options = parser.parse_args()

    shutil.rmtree(options.work, ignore_errors=True)
    classes, parsed, generated = (options.work / name for name in ("classes", "java", "cpp"))
    for folder in (classes, parsed, generated):
        folder.mkdir(parents=True)
    jars = options.classpath.replace(";", os.pathsep)
    classpath = f"{jars}{os.pathsep}{classes}"
    javac = [options.javac, "-encoding", "UTF-8", "-proc:none", "-nowarn", "-d", classes, "-cp", classpath]
    builder = [options.java, "-cp", classpath, "org.bytedeco.javacpp.tools.Builder", "-encoding", "UTF-8", "-classpath", classes]

    # The preset's documentation refers to the generated class, but its code does not, so it compiles first.
    run(*javac, options.sources / (PRESET.replace(".", "/") + ".java"))
    log = run(*builder, "-nogenerate", f"-Dplatform.includepath={options.include}", "-d", parsed, PRESET)
    java = parsed / (GLOBAL.replace(".", "/") + ".java")
    if not java.is_file():
        sys.exit(f"JavaCPP's parser made no {java.name}:\n{log}")
    # Types of callbacks become classes of their own beside it.
    sources = sorted(parsed.rglob("*.java"))
    run(*javac, *sources)
    names = [".".join(source.relative_to(parsed).with_suffix("").parts) for source in sources]
    log = run(*builder, "-nocompile", "-d", generated, "-o", "jnimolfuse", *names)
    for name in ("jnimolfuse.cpp", "jnijavacpp.cpp"):
        found = list(generated.rglob(name))
        if len(found) != 1:
            sys.exit(f"JavaCPP's generator made no {name}:\n{log}")
        replace_if_different(found[0], options.cpp / name)
    for source in parsed.rglob("*.java"):
        replace_if_different(source, options.generated_java / source.relative_to(parsed))


if __name__ == "__main__":
    main()
