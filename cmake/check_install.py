#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installs a build and uses it as other projects would.

    check_install.py --build DIR ...      (src/main/cpp's build calls it)

The build is installed into a folder far from it, which is then moved: nothing in it may name a place. Against it: every public header by
itself as C99, C11 and C++17 without a warning; find_package with versions and components that are there and that are not;
examples/cmake-consumer; and examples/c through pkg-config. Exit status 77: a tool that only this needs is missing.
--flags are for the compilers: a library with the sanitizers needs their runtime in its consumers too.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]


class Wrong(Exception):
    pass


def run(*command, env=None, cwd=None):
    result = subprocess.run([str(word) for word in command], env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        raise Wrong(f"{' '.join(map(str, command))}\n{result.stdout}status {result.returncode}")
    return result.stdout


def install(options, work):
    run(options.cmake, "--install", options.build, "--prefix", work / "installed")
    return (work / "installed").rename(work / "moved")


def check_places(options, prefix):
    """Texts name no folder of the build or of the source, and the library no path but its own folder."""
    places = {str(options.build), str(ROOT), str(prefix.with_name("installed"))}
    texts = [path for path in prefix.rglob("*") if path.suffix in (".cmake", ".pc", ".h")]
    for path in texts:
        for place in places:
            if place in path.read_text():
                raise Wrong(f"{path.relative_to(prefix)} names {place}")
    section = run(options.readelf, "-d", prefix / options.libdir / "libmolfuse.so")
    if re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", section) not in ([], ["$ORIGIN"]):
        raise Wrong(f"libmolfuse.so has a search path:\n{section}")
    if re.findall(r"\(SONAME\).*\[(.*)\]", section) != [options.soname]:
        raise Wrong(f"libmolfuse.so: expected the SONAME {options.soname}:\n{section}")
    if not (prefix / options.libdir / options.soname).is_file():
        raise Wrong(f"{options.soname} is not installed")


def check_headers(options, prefix, work):
    include = prefix / options.includedir
    headers = sorted(path for path in (include / "molfuse").glob("*.h") if path.name != "molfuse_torch.h")
    if len(headers) < 2:
        raise Wrong(f"{include / 'molfuse'}: no headers")
    for header in headers:
        name = f"molfuse/{header.name}"
        source = work / "header.c"
        # Twice: the guard. A declaration after it: a file with nothing but includes is not ISO C.
        source.write_text(f"#include <{name}>\n#include <{name}>\nint molfuse_header_test;\n")
        for compiler, standard, language in ((options.cc, "c99", "c"), (options.cc, "c11", "c"), (options.cxx, "c++17", "c++")):
            run(compiler, f"-std={standard}", "-x", language, *STRICT, "-fsyntax-only", f"-I{include}", source)
    return len(headers)


def find_package(options, prefix, work, request):
    """Whether find_package(molfuse REQUEST) succeeds, and what it says if not."""
    folder = work / "find"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(find LANGUAGES CXX)\n"
        f"find_package(molfuse {request})\n"
        "if(molfuse_FOUND AND NOT TARGET molfuse::molfuse)\n  message(FATAL_ERROR \"no molfuse::molfuse\")\nendif()\n"
        "if(molfuse_torch_FOUND AND NOT TARGET molfuse::torch)\n  message(FATAL_ERROR \"no molfuse::torch\")\nendif()\n"
        "message(STATUS \"found: ${molfuse_FOUND} ${molfuse_VERSION}\")\n")
    output = run(options.cmake, "-G", options.generator, f"-DCMAKE_MAKE_PROGRAM={options.make_program}", f"-DCMAKE_CXX_COMPILER={options.cxx}",
                 f"-DCMAKE_PREFIX_PATH={prefix}", "-S", folder, "-B", folder / "build")
    return re.search(r"found: (1|TRUE) ", output) is not None, output


def check_find_package(options, prefix, work):
    major, minor, patch = map(int, options.version.split("."))
    here, torch = f"{major}.{minor}", "torch" in options.parts
    for request, expected in ((here, True), (options.version, True), (f"{options.version} EXACT", True),
                              (f"{here} COMPONENTS kernels", True), (f"{here} COMPONENTS kernels torch", torch),
                              (f"{here} COMPONENTS kernels OPTIONAL_COMPONENTS torch", True), (f"{here} COMPONENTS cheese", False),
                              (f"{major}.{minor + 1}", False), (f"{major + 1}.0", False), (f"{here}.{patch + 1}", False)):
        found, output = find_package(options, prefix, work, request)
        if found != expected:
            raise Wrong(f"find_package(molfuse {request}) {'succeeds' if found else 'fails'}:\n{output}")
        if "kernels torch" in request and not torch and "MOLFUSE_TORCH=OFF" not in output:
            raise Wrong(f"find_package(molfuse {request}) does not say why:\n{output}")


def check_cmake_consumer(options, prefix, work):
    source, build = work / "cmake-consumer", work / "cmake-consumer-build"
    shutil.copytree(ROOT / "examples" / "cmake-consumer", source)
    run(options.cmake, "-G", options.generator, f"-DCMAKE_MAKE_PROGRAM={options.make_program}", f"-DCMAKE_CXX_COMPILER={options.cxx}",
        f"-DCMAKE_CXX_FLAGS={options.flags}", f"-DCMAKE_PREFIX_PATH={prefix}", "-S", source, "-B", build)
    run(options.cmake, "--build", build)
    return run(build / "consumer")


def check_c(options, prefix, work):
    source = work / "c"
    shutil.copytree(ROOT / "examples" / "c", source)
    env = dict(os.environ, PKG_CONFIG_PATH=str(prefix / options.libdir / "pkgconfig"))
    version = run("pkg-config", "--modversion", "molfuse", env=env).strip()
    if version != options.version:
        raise Wrong(f"pkg-config says version {version}, expected {options.version}")
    run("pkg-config", f"--atleast-version={options.version}", "molfuse", env=env)
    flags = run("pkg-config", "--cflags", "--libs", "molfuse", env=env).split()
    for standard in ("c99", "c11"):
        program = work / f"classifier-{standard}"
        run(options.cc, f"-std={standard}", *STRICT, "-O2", *options.flags.split(), source / "classifier.c", "-o", program, *flags, "-lm")
    return run(program, env=dict(env, LD_LIBRARY_PATH=str(prefix / options.libdir)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("cmake", "generator", "make-program", "libdir", "includedir", "version", "cxx", "readelf", "soname"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--parts", nargs="+", default=["kernels"])
    parser.add_argument("--flags", default="")
    options = parser.parse_args()
    options.cc = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    for tool, found in (("a C compiler", options.cc), ("pkg-config", shutil.which("pkg-config"))):
        if not found:
            print(f"skipped: {tool} is not installed")
            return 77
    if os.path.isabs(options.libdir) or os.path.isabs(options.includedir):
        print("skipped: an installation in absolute folders cannot be moved")
        return 77
    with tempfile.TemporaryDirectory(prefix="molfuse-install-") as folder:
        work = pathlib.Path(folder)
        try:
            prefix = install(options, work)
            check_places(options, prefix)
            print(f"{check_headers(options, prefix, work)} headers, each by itself as C99, C11 and C++17")
            check_find_package(options, prefix, work)
            print(check_cmake_consumer(options, prefix, work), end="")
            print(check_c(options, prefix, work), end="")
        except Wrong as wrong:
            print(wrong)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
