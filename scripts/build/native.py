#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Maven's way into the native build.

    native.py build --build-dir DIR --generated-java DIR --install DIR   configures if needed, builds, copies the libraries
    native.py test  --build-dir DIR --sanitized-build-dir DIR            runs CTest on that build and on a sanitized one
"""
import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import bootstrap

ROOT = bootstrap.ROOT


def call(lock, *command):
    # In a group of its own, so that compilers do not live on when Maven is stopped, which ends this process only. With the lock,
    # which is held until the last process that has it ends: if this one is killed, Ninja may live on for a while.
    child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, start_new_session=True,
                             pass_fds=[lock.fileno()])
    try:
        status = child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        raise
    if status != 0:
        raise bootstrap.Failure(f"failed: {' '.join(map(str, command))}")


def free_memory(meminfo=pathlib.Path("/proc/meminfo"), cgroup=pathlib.Path("/sys/fs/cgroup")):
    """Bytes that may still be used, by the machine and by the limit of the container, which meminfo does not show; or None."""
    def number(file, key):
        return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.split()[:1] == [key])

    free = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        free.append(number(meminfo, "MemAvailable:") * 1024)
    with contextlib.suppress(OSError, ValueError, StopIteration):  # no limit reads "max"
        # What is used includes cached files, which give way.
        used = int((cgroup / "memory.current").read_text()) - number(cgroup / "memory.stat", "inactive_file")
        free.append(int((cgroup / "memory.max").read_text()) - used)
    return min(free, default=None)


def parallel_jobs():
    """Kernel sources take up to 1 GiB each to compile; cmake/jobs.cmake holds those with libtorch's headers back further."""
    cores = len(os.sched_getaffinity(0))
    free = free_memory()
    return cores if free is None else max(1, min(cores, free >> 30))


@contextlib.contextmanager
def exclusive(build_dir):
    """Ninja does not notice another Ninja in the same folder."""
    build_dir.mkdir(parents=True, exist_ok=True)
    with open(build_dir / "native.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            bootstrap.say(f"waiting for another build in {build_dir}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def configure_and_build(lock, tools, build_dir, settings, target=None):
    arguments = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}", f"-DPython3_EXECUTABLE={sys.executable}", *settings]
    # Ninja itself configures again when a CMake file changed; this is for a new folder, new settings or a failed first try.
    record = build_dir / "configured-with.json"
    environment = {name: os.environ.get(name) for name in ("CC", "CFLAGS", "CXX", "CXXFLAGS", "JAVA_HOME", "LDFLAGS")}
    wanted = json.dumps([str(tools["cmake"]), str(ROOT), arguments, environment])
    if not record.is_file() or record.read_text() != wanted:
        record.unlink(missing_ok=True)
        # CMake would keep the compiler and the JDK it found before, and refuses a folder that was moved.
        (build_dir / "CMakeCache.txt").unlink(missing_ok=True)
        shutil.rmtree(build_dir / "CMakeFiles", ignore_errors=True)
        call(lock, tools["cmake"], "--log-level=STATUS", "-S", ROOT, "-B", build_dir, *arguments)
        record.write_text(wanted)
    make(lock, tools, build_dir, *(["--target", target] if target else []))


def make(lock, tools, build_dir, *arguments):
    call(lock, tools["cmake"], "--build", build_dir, "--parallel", parallel_jobs(), *arguments)


def install(build_dir, target):
    """Copies the libraries that changed, so that an unchanged jar stays unchanged."""
    target.mkdir(parents=True, exist_ok=True)
    built = {library.name: library for library in (build_dir / "lib").glob("*.so")}
    for name, library in built.items():
        copy = target / name
        status = library.stat()
        if not copy.is_file() or (copy.stat().st_size, copy.stat().st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            # Not over the old file: a running program may have it mapped.
            fresh = target / f".{name}.new"
            shutil.copy2(library, fresh)
            fresh.replace(copy)
    for stale in set(path.name for path in target.glob("*.so")) - set(built):
        (target / stale).unlink()


def build(tools, options):
    with exclusive(options.build_dir) as lock:
        configure_and_build(lock, tools, options.build_dir, [
            "-DMOLFUSE_TORCH=ON", "-DMOLFUSE_JNI=ON", "-DMOLFUSE_TESTS=ON", f"-DMOLFUSE_CUDA={options.cuda}",
            f"-DMOLFUSE_JAVA_OUTPUT={options.generated_java}",
            f"-DMOLFUSE_MAVEN_REPOSITORY={options.maven_repository or ''}"],
            # The bindings need all the rest but the tests, which take as long to compile as a small kernel family.
            target="jnimolfuse" if "true" in options.skip else None)
        install(options.build_dir, options.install)


def run_tests(lock, tools, build_dir):
    call(lock, tools["ctest"], "--test-dir", build_dir, "--parallel", parallel_jobs(), "--output-on-failure", "--no-tests=error")


def test(tools, options):
    # Maven leaves ${test} as it is where no single Java test was asked for.
    if "true" in options.skip or (options.only and not options.only.startswith("${")):
        print("molfuse: native tests are skipped", flush=True)
        return
    with exclusive(options.build_dir) as lock:
        make(lock, tools, options.build_dir)
        # CTest itself says that a test is skipped, but not why.
        call(lock, sys.executable, ROOT / "scripts/build/check_python.py", "--reason", options.build_dir / "lib/libmolfuse_torch.so")
        run_tests(lock, tools, options.build_dir)
    with exclusive(options.sanitized_build_dir) as lock:
        configure_and_build(lock, tools, options.sanitized_build_dir, [
            "-DMOLFUSE_SANITIZE=ON", "-DMOLFUSE_TORCH=OFF", "-DMOLFUSE_JNI=OFF", "-DMOLFUSE_TESTS=ON",
            "-DMOLFUSE_EMULATE_AVX512=ON"])
        run_tests(lock, tools, options.sanitized_build_dir)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("build", "test"))
    parser.add_argument("--build-dir", required=True, type=pathlib.Path)
    parser.add_argument("--sanitized-build-dir", type=pathlib.Path)
    parser.add_argument("--generated-java", type=pathlib.Path)
    parser.add_argument("--install", type=pathlib.Path)
    parser.add_argument("--maven-repository")
    parser.add_argument("--cuda", default="ON", help="CUDA kernels: ON, OFF, or AUTO (where there is an NVIDIA GPU)")
    parser.add_argument("--skip", action="append", default=[], help="true: leave the native tests out (for Maven's skipTests)")
    parser.add_argument("--only", default="", help="a Java test was chosen: leave the native ones out")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        found = bootstrap.provide(["cmake", "ninja"], options.maven_repository)
        tools = {"cmake": found["MOLFUSE_CMAKE"][0], "ctest": found["MOLFUSE_CTEST"][0], "ninja": found["MOLFUSE_NINJA"][0]}
        (build if options.action == "build" else test)(tools, options)
    except bootstrap.ERRORS as failure:
        bootstrap.say(str(failure))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
