#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Names the tools that cannot be fetched without root and are missing, as one apt-get line. Silent when all are there.
# Usage: check_tools.sh [PART]    PART of the build that the tools are for:
#   c      libmolfuse: a C++ compiler, Python
#   torch  libmolfuse_torch too: also Python's venv, to fetch libtorch's headers
#   jni    the Java bindings too: also a JDK
#   all    everything, through Maven (the default)
set -u

part=${1:-all}

# Prints the major version of the javac to be used, or nothing.
javac_major() {
  javac=javac
  if [ -n "${JAVA_HOME:-}" ] && [ -x "$JAVA_HOME/bin/javac" ]; then javac=$JAVA_HOME/bin/javac; fi
  "$javac" -version 2>&1 | sed -n 's/^javac \([0-9][0-9]*\).*/\1/p'
}

# Debian 12's default JDK is 17, Debian 13's 21 (and it has no 17); older releases default to 11 but have a package of 17.
jdk_package() {
  default=$(apt-cache policy default-jdk-headless 2>/dev/null | sed -n 's/.*Candidate: *[0-9]*:1\.\([0-9]*\).*/\1/p')
  if [ -n "$default" ] && [ "$default" -lt 17 ]; then echo openjdk-17-jdk-headless; else echo default-jdk-headless; fi
}

missing=""
if [ "$part" = all ] || [ "$part" = jni ]; then
  major=$(javac_major)
  if [ -z "$major" ] || [ "$major" -lt 17 ]; then missing="$missing $(jdk_package)"; fi
fi
if [ "$part" = all ] && ! command -v mvn >/dev/null 2>&1; then missing="$missing maven"; fi

compiler=no
for candidate in "${CXX:-}" c++ g++ clang++; do
  [ -n "$candidate" ] || continue
  # ${CXX} may hold arguments ("ccache g++"), so it is split on purpose.
  # shellcheck disable=SC2086
  if printf '#if __cplusplus < 201703L\n#error\n#endif\n#include <optional>\nint main() {}\n' |
    $candidate -std=c++17 -x c++ -fsyntax-only - >/dev/null 2>&1; then
    compiler=yes
    break
  fi
done
[ $compiler = yes ] || missing="$missing g++"

# Debian splits ensurepip, which venv needs, into a package of its own.
modules="sys, venv, ensurepip"
venv=" python3-venv"
if [ "$part" = c ]; then
  modules=sys
  venv=""
fi
if ! command -v python3 >/dev/null 2>&1; then
  missing="$missing python3$venv"
elif ! python3 -c "import $modules; sys.exit(sys.version_info < (3, 8))" >/dev/null 2>&1; then
  missing="$missing${venv:- python3}"
fi

[ -z "$missing" ] && exit 0
needs="a C++17 compiler, Python 3.8 or later"
[ "$part" = c ] || needs="$needs with venv"
[ "$part" = jni ] && needs="JDK 17 or later, $needs"
[ "$part" = all ] && needs="JDK 17 or later, Maven, $needs"
echo "sudo apt-get install -y$missing" >&2
echo "molfuse's build needs these packages ($needs)." >&2
exit 1
