#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Finds or fetches what the build needs beyond a JDK, Maven, a C++ compiler and Python, without root.

    bootstrap.py [--maven-repository DIR] [--format cmake|lines] ITEM...

Items, and the variables printed for each:
    headers     MOLFUSE_TORCH_INCLUDE      libtorch's C++ headers (PyPI wheel)
    libraries   MOLFUSE_PRESET_LIBRARIES   folder of libc10.so, libtorch_cpu.so, ... (the bytedeco preset's jars)
    openblas    MOLFUSE_OPENBLAS_LIBRARIES folder of what libtorch_cpu.so needs beside them to run (native tests)
    classpath   MOLFUSE_PRESET_CLASSPATH   jars of JavaCPP and the presets (Java side)
    googletest  MOLFUSE_GOOGLETEST_SOURCE  GoogleTest's source tree
    cuda        MOLFUSE_NVCC, MOLFUSE_CUDA_INCLUDE, MOLFUSE_CUDART (libcudart_static.a), MOLFUSE_CUOBJDUMP (may be empty)
    cudnn       MOLFUSE_CUDNN_INCLUDE (cuDNN's headers and those of cudnn-frontend), MOLFUSE_CUDNN_LIBRARIES (libcudnn, for tests; may be empty)
    cmake       MOLFUSE_CMAKE, MOLFUSE_CTEST
    ninja       MOLFUSE_NINJA
    tensorboard MOLFUSE_TENSORBOARD        folder of Python packages that read TensorBoard's event files (for a test)
    safetensors MOLFUSE_SAFETENSORS        folder for PYTHONPATH (tests: another reader and writer of safetensors files)

Everything fetched is kept in the cache, ${MOLFUSE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/molfuse}, in folders named by what they
hold, moved in whole: a folder that exists is complete, and a second clone fetches nothing.
"""
import argparse
import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-build.txt"
CMAKE_MINIMUM = (3, 22)
PRESET_LIBRARIES = ("libc10.so", "libtorch.so", "libtorch_cpu.so", "libgomp.so.1")
CUDA_WHEELS = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime", "nvidia-cuda-cccl", "nvidia-cuda-cuobjdump",
               "nvidia-cuda-nvdisasm")
# Those of cuDNN that make plans of attention: not convolutions' and recurrent networks', nor the precompiled kernels.
CUDNN_LIBRARIES = ("libcudnn.so.9", "libcudnn_graph.so.9", "libcudnn_heuristic.so.9", "libcudnn_engines_runtime_compiled.so.9",
                   "libcudnn_engines_precompiled.so.9", "libnvrtc.so.13", "libnvrtc-builtins.so.13.0")
TENSORBOARD_WHEELS = ("tensorboard", "protobuf", "absl-py", "numpy", "packaging")
OPENBLAS_LIBRARIES = ("libopenblas.so.0", "libgfortran.so.5", "libquadmath.so.0")


class Failure(Exception):
    pass


# What is the machine's or the network's fault, and as one line says enough.
ERRORS = (Failure, OSError, zipfile.BadZipFile)


def say(text):
    # stdout carries the answer.
    print(f"molfuse: {text}", file=sys.stderr, flush=True)


def run(command, purpose, **options):
    """Runs a program, showing its output only if it fails."""
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, **options)
    except OSError as error:
        raise Failure(f"{purpose} failed: {error}") from error
    if done.returncode != 0:
        raise Failure(f"{purpose} failed: {' '.join(map(str, command))}\n{done.stdout.strip()}")
    return done.stdout


def pom_properties():
    """The properties of pom.xml: the one place where versions of Maven artifacts are pinned."""
    space = "{http://maven.apache.org/POM/4.0.0}"
    element = xml.etree.ElementTree.parse(ROOT / "pom.xml").getroot().find(f"{space}properties")
    return {child.tag[len(space):]: child.text for child in element if child.tag.startswith(space)}


def requirement(name):
    """The entry of requirements-build.txt for a package: (version, lines with hashes)."""
    text = REQUIREMENTS.read_text().replace("\\\n", " ")
    match = re.search(rf"^{re.escape(name)}==(\S+).*$", text, re.MULTILINE)
    if not match:
        raise Failure(f"{REQUIREMENTS.name} has no entry for {name}")
    return match.group(1), match.group(0) + "\n"


def short_hash(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def distribution():
    """Such as debian-12: what a distribution's package is good for."""
    try:
        lines = pathlib.Path("/etc/os-release").read_text().splitlines()
    except OSError:
        lines = []
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return "-".join(re.sub(r"[^A-Za-z0-9.]", "", values.get(key, "")) or "unknown" for key in ("ID", "VERSION_ID"))


def cuda_release(root):
    """(major, minor) of the CUDA toolkit in a folder, or None."""
    nvcc = root / "bin" / "nvcc"
    if not os.access(nvcc, os.X_OK):
        return None
    try:
        match = re.search(r"release (\d+)\.(\d+)", run([nvcc, "--version"], "asking nvcc for its version"))
    except Failure:
        return None
    return (int(match.group(1)), int(match.group(2))) if match else None


def cuda_variables(root):
    libraries = next((root / name for name in ("lib64", "lib", "targets/x86_64-linux/lib")
                      if (root / name / "libcudart_static.a").is_file()), None)
    if libraries is None:
        raise Failure(f"{root} holds no libcudart_static.a")
    objdump = root / "bin" / "cuobjdump"
    return {"MOLFUSE_NVCC": [root / "bin" / "nvcc"], "MOLFUSE_CUDA_INCLUDE": [root / "include"],
            "MOLFUSE_CUDART": [libraries / "libcudart_static.a"],
            "MOLFUSE_CUOBJDUMP": [objdump] if objdump.is_file() else []}


class Cache:
    def __init__(self, root, maven_repository=None):
        self.root = root
        self.maven_repository = pathlib.Path(maven_repository or default_maven_repository())
        # Maven shall look and fetch there too. Unasked it uses its own settings, which may name another folder than the default.
        self.maven_options = [f"-Dmaven.repo.local={self.maven_repository.absolute()}"] if maven_repository else []
        self.properties = pom_properties()
        root.mkdir(parents=True, exist_ok=True)

    def folder(self, name, fill):
        """The cached folder of that name; made by fill(temporary_folder) if it is not there yet."""
        final = self.root / name
        if final.is_dir():
            return final
        with self.lock(name):
            if final.is_dir():  # another process made it while this one waited
                return final
            for remains in self.root.glob(f".{name}.*/"):  # of a process that was killed
                shutil.rmtree(remains, ignore_errors=True)
            temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self.root))
            try:
                fill(temporary)
                temporary.chmod(0o755)
                temporary.rename(final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        return final

    @contextlib.contextmanager
    def lock(self, name):
        with open(self.root / f".{name}.lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another build that is fetching {name}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # -- PyPI

    def pip(self):
        """A pip of our own: the system's may be missing, too old or locked against installs."""
        def fill(folder):
            run([sys.executable, "-m", "venv", folder], "creating a Python virtual environment")
        # It refers to the Python it was made with, of which a machine may have several of one version.
        name = f"pip-python{sys.version_info[0]}.{sys.version_info[1]}-{short_hash(sys.base_prefix)}"
        # Programs in a venv hold its absolute path, but `python -m pip` works from wherever the folder was moved to.
        return self.folder(name, fill) / "bin" / "python"

    def download_wheel(self, name, target, options=()):
        _, lines = requirement(name)
        wanted = target / "requirement.txt"
        wanted.write_text(lines)
        run([self.pip(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps",
             "--only-binary=:all:", "--require-hashes", *options, "-r", wanted, "-d", target], f"downloading {name}")
        wanted.unlink()
        wheels = list(target.glob("*.whl"))
        if len(wheels) != 1:
            raise Failure(f"expected one wheel of {name}, got {[wheel.name for wheel in wheels]}")
        return wheels[0]

    def headers(self):
        version, _ = requirement("torch")
        preset = self.properties["pytorch.version"].split("-")[0]
        if version != preset:
            raise Failure(f"{REQUIREMENTS.name} pins the headers of libtorch {version}, pom.xml the libraries of {preset}")

        def fill(folder):
            say(f"fetching libtorch {version}'s headers (146 MB, once per cache)")
            wheel = self.download_wheel("torch", folder, ["--python-version", "3.12", "--implementation", "cp",
                                                          "--platform", "manylinux_2_28_aarch64"])
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.namelist():
                    if entry.startswith("torch/include/"):
                        archive.extract(entry, folder)
            wheel.unlink()
            (folder / "torch" / "include").rename(folder / "include")
            (folder / "torch").rmdir()
        include = self.folder(f"torch-headers-{version}", fill) / "include"
        return {"MOLFUSE_TORCH_INCLUDE": [include, include / "torch" / "csrc" / "api" / "include"]}

    def python_tool(self, name):
        """Path of a program that PyPI ships in a wheel."""
        version, _ = requirement(name)

        def fill(folder):
            say(f"fetching {name} {version}")
            wheel = self.download_wheel(name, folder)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            wheel.unlink()
            for program in self.programs(folder, name):
                program.chmod(0o755)
        folder = self.folder(f"{name}-{version}-{os.uname().machine}", fill)
        return {program.name: program for program in self.programs(folder, name)}

    @staticmethod
    def programs(folder, name):
        found = [path for pattern in ("*/data/bin/*", f"{name}-*.data/scripts/*") for path in folder.glob(pattern) if path.is_file()]
        if not found:
            raise Failure(f"the wheel of {name} holds no program")
        return found

    def python_packages(self, name, wheels):
        """A folder to import from, of the package of that name and what it needs. The Python that runs this can use it."""
        def fill(folder):
            say(f"fetching the Python package {name} {requirement(name)[0]}")
            wanted = folder / "requirement.txt"
            wanted.write_text("".join(requirement(wheel)[1] for wheel in wheels))
            run([self.pip(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-compile", "--no-deps",
                 "--only-binary=:all:", "--require-hashes", "--target", folder / "site", "-r", wanted], f"installing {name}")
            wanted.unlink()
        key = short_hash([sys.version_info[:2], os.uname().machine, [requirement(wheel) for wheel in wheels]])
        return self.folder(f"{name}-{requirement(name)[0]}-{key}", fill) / "site"

    def tensorboard(self):
        return {"MOLFUSE_TENSORBOARD": [self.python_packages("tensorboard", TENSORBOARD_WHEELS)]}

    def cuda(self):
        """A CUDA toolkit of the wanted release: the system's, or one put together from PyPI's wheels."""
        wanted, _ = requirement("nvidia-cuda-nvcc")
        release = tuple(map(int, wanted.split(".")[:2]))
        candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
        if shutil.which("nvcc"):
            candidates.append(pathlib.Path(shutil.which("nvcc")).resolve().parent.parent)
        for root in map(pathlib.Path, filter(None, candidates)):
            found = cuda_release(root)
            # Within a major release newer compilers take the same sources and older drivers run what they make.
            if found and found[0] == release[0] and found >= release:
                return cuda_variables(root)

        def fill(folder):
            say(f"fetching the CUDA {release[0]}.{release[1]} compiler (105 MB, once per cache)")
            for name in CUDA_WHEELS:
                wheel = self.download_wheel(name, folder)
                with zipfile.ZipFile(wheel) as archive:
                    for entry in archive.namelist():
                        if entry.startswith("nvidia/"):
                            archive.extract(entry, folder)
                wheel.unlink()
            for tools in ("bin", "nvvm/bin"):
                for program in (folder / "nvidia/cu13" / tools).iterdir():
                    program.chmod(0o755)
        key = short_hash([requirement(name) for name in CUDA_WHEELS])
        return cuda_variables(self.folder(f"cuda-{wanted}-{os.uname().machine}-{key}", fill) / "nvidia/cu13")

    def cudnn(self):
        """Headers and, where they can run, the libraries that the tests make plans with. The headers are the same on every platform."""
        names = ("nvidia-cudnn-cu13", "nvidia-cudnn-frontend", "nvidia-cuda-nvrtc")
        version, _ = requirement(names[0])
        libraries = os.uname().machine == "x86_64"

        def fill(folder):
            say(f"fetching cuDNN {version} (460 MB, once per cache)")
            for name in names:
                wheel = self.download_wheel(name, folder, ["--python-version", "3.11", "--implementation", "cp",
                                                           "--platform", "manylinux_2_12_x86_64", "--platform", "manylinux_2_27_x86_64",
                                                           "--platform", "manylinux_2_28_x86_64"])
                with zipfile.ZipFile(wheel) as archive:
                    for entry in archive.namelist():
                        library = entry.startswith("nvidia/") and pathlib.Path(entry).name in CUDNN_LIBRARIES
                        if entry.startswith(("nvidia/cudnn/include/", "include/")) or (library and libraries):
                            archive.extract(entry, folder)
                wheel.unlink()
        key = short_hash([requirement(name) for name in names] + [CUDNN_LIBRARIES])
        root = self.folder(f"cudnn-{version}-{os.uname().machine}-{key}", fill)
        return {"MOLFUSE_CUDNN_INCLUDE": [root / "include", root / "nvidia/cudnn/include"],
                "MOLFUSE_CUDNN_LIBRARIES": [root / "nvidia/cudnn/lib"] if libraries else []}

    # -- Maven

    def maven_jar(self, group, artifact, version, classifier, folder):
        """A jar from the local Maven repository, or fetched into folder by Maven."""
        name = f"{artifact}-{version}{'-' + classifier if classifier else ''}.jar"
        local = self.maven_repository / group.replace(".", "/") / artifact / version / name
        if local.is_file():
            return local
        coordinates = f"{group}:{artifact}:{version}:jar{':' + classifier if classifier else ''}"
        if not shutil.which("mvn"):
            raise Failure(f"Maven is needed to fetch {coordinates}, and mvn is missing; this installs it:\n"
                          "sudo apt-get install -y maven")
        say(f"fetching {coordinates}")
        plugin = f"org.apache.maven.plugins:maven-dependency-plugin:{self.properties['maven-dependency-plugin.version']}:copy"
        # Not from the project's folder: its pom.xml and .mvn settings are of no use to a single download.
        run(["mvn", "-B", "-q", *self.maven_options, plugin, f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}", "-Dmdep.useBaseVersion=true"],
            f"fetching {coordinates}", cwd=self.root)
        return folder / name

    def preset_jars(self):
        versions = self.properties
        return [("javacpp", versions["javacpp.version"]), ("openblas", versions["openblas.version"]),
                ("pytorch", versions["pytorch.version"])]

    def native_libraries(self, artifact, names):
        """A folder of the named libraries out of a preset's jar for this platform."""
        platform = self.properties["molfuse.platform"]
        version = self.properties[f"{artifact}.version"]

        def fill(folder):
            say(f"unpacking the libraries of the preset {artifact} {version}")
            fetched = folder / "fetched"
            jar = self.maven_jar("org.bytedeco", artifact, version, platform, fetched)
            try:
                with zipfile.ZipFile(jar) as archive:
                    for name in names:
                        entry = f"org/bytedeco/{artifact}/{platform}/{name}"
                        with archive.open(entry) as source, open(folder / name, "wb") as target:
                            shutil.copyfileobj(source, target, 1 << 20)
            except (zipfile.BadZipFile, KeyError) as error:
                raise Failure(f"{jar} is damaged or not the expected one: {error}") from error
            shutil.rmtree(fetched, ignore_errors=True)
        return self.folder(f"{artifact}-{version}-{platform}-{short_hash(names)}", fill)

    def libraries(self):
        return {"MOLFUSE_PRESET_LIBRARIES": [self.native_libraries("pytorch", PRESET_LIBRARIES)]}

    def openblas(self):
        return {"MOLFUSE_OPENBLAS_LIBRARIES": [self.native_libraries("openblas", OPENBLAS_LIBRARIES)]}

    def classpath(self):
        versions = self.preset_jars()
        name = f"preset-jars-{short_hash(versions)}"
        folder = self.root / name
        if not folder.is_dir():
            local = [self.maven_repository / "org/bytedeco" / artifact / version / f"{artifact}-{version}.jar"
                     for artifact, version in versions]
            if all(jar.is_file() for jar in local):
                return {"MOLFUSE_PRESET_CLASSPATH": local}

        def fill(temporary):
            for artifact, version in versions:
                jar = self.maven_jar("org.bytedeco", artifact, version, None, temporary)
                if jar.parent != temporary:
                    shutil.copy(jar, temporary)
        folder = self.folder(name, fill)
        return {"MOLFUSE_PRESET_CLASSPATH": [folder / f"{artifact}-{version}.jar" for artifact, version in versions]}

    # -- build tools

    def cmake(self):
        system = shutil.which("cmake")
        if system and shutil.which("ctest"):
            match = re.search(r"cmake version (\d+)\.(\d+)", run([system, "--version"], "asking CMake's version"))
            if match and tuple(map(int, match.groups())) >= CMAKE_MINIMUM:
                return {"MOLFUSE_CMAKE": [system], "MOLFUSE_CTEST": [shutil.which("ctest")]}
        programs = self.python_tool("cmake")
        return {"MOLFUSE_CMAKE": [programs["cmake"]], "MOLFUSE_CTEST": [programs["ctest"]]}

    def ninja(self):
        system = shutil.which("ninja") or shutil.which("ninja-build")
        return {"MOLFUSE_NINJA": [system or self.python_tool("ninja")["ninja"]]}

    def safetensors(self):
        version, _ = requirement("safetensors")

        def fill(folder):
            say(f"fetching safetensors {version}")
            wheel = self.download_wheel("safetensors", folder)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            wheel.unlink()
        return {"MOLFUSE_SAFETENSORS": [self.folder(f"safetensors-{version}-{os.uname().machine}", fill)]}

    def googletest(self):
        system = pathlib.Path("/usr/src/googletest")
        if (system / "CMakeLists.txt").is_file():
            return {"MOLFUSE_GOOGLETEST_SOURCE": [system]}
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            # Elsewhere CMake looks for an installed GoogleTest itself.
            return {"MOLFUSE_GOOGLETEST_SOURCE": []}

        def fill(folder):
            say("fetching GoogleTest's Debian package")
            state = folder / "apt"
            for part in ("state/lists/partial", "cache/archives/partial"):
                (state / part).mkdir(parents=True)
            # A state of its own, so that neither root nor an earlier `apt-get update` is needed.
            options = ["-o", f"Dir::State={state}/state", "-o", "Dir::State::status=/var/lib/dpkg/status",
                       "-o", f"Dir::Cache={state}/cache", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="]
            run(["apt-get", *options, "-q", "update"], "reading the package lists")
            run(["apt-get", *options, "-q", "download", "googletest"], "downloading googletest", cwd=folder)
            package = next(folder.glob("googletest_*.deb"))
            run(["dpkg", "-x", package, folder], "unpacking googletest")
            package.unlink()
            shutil.rmtree(state)
        try:
            return {"MOLFUSE_GOOGLETEST_SOURCE": [self.folder(f"googletest-{distribution()}", fill) / "usr/src/googletest"]}
        except ERRORS as failure:
            say(f"{failure}\nmolfuse: without the package, an installed GoogleTest is looked for")
            return {"MOLFUSE_GOOGLETEST_SOURCE": []}


ITEMS = ("cuda", "cudnn", "headers", "libraries", "openblas", "classpath", "googletest", "cmake", "ninja", "tensorboard", "safetensors")


def default_cache():
    base = os.environ.get("MOLFUSE_CACHE")
    if base:
        return pathlib.Path(base).expanduser().absolute()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "molfuse"


def default_maven_repository():
    return pathlib.Path("~/.m2/repository").expanduser()


def provide(items, maven_repository=None):
    """The variables of the items as a dict of lists of paths."""
    cache = Cache(default_cache(), maven_repository)
    result = {}
    for item in items:
        result.update(getattr(cache, item)())
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("items", nargs="+", choices=ITEMS, metavar="ITEM", help=", ".join(ITEMS))
    parser.add_argument("--maven-repository", help="local Maven repository to look in first and to fetch into")
    parser.add_argument("--format", choices=("cmake", "lines"), default="lines")
    options = parser.parse_args()
    try:
        found = provide(options.items, options.maven_repository)
    except ERRORS as failure:
        say(str(failure))
        return 1
    for name, paths in found.items():
        if options.format == "cmake":
            print(f'set({name} "{";".join(map(str, paths))}")')
        else:
            print(f"{name}={os.pathsep.join(map(str, paths))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
