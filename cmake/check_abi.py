#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the binary interface of libmolfuse against the list of it in src/main/cpp/abi.tsv.

    check_abi.py --nm NM --library LIBRARY --cxx COMPILER --include DIR --list FILE [--update]

The list has the exported symbols, the size of every struct of the public headers with offset and size of every field, and the enumerators.
Programs compiled against an earlier header call the library with its layout: what the list holds may not change, only grow. Where a change
is meant, --update writes the list anew; its difference then belongs to the commit.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

HEAD = "# SPDX-License-Identifier: Apache-2.0\n# Written by cmake/check_abi.py --update. struct: size; field: offset, size; enumerator: value; symbol: exported.\n"


def without_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def structs_of(text):
    """(name, [field]) of each struct, in order."""
    for body, name in re.findall(r"typedef struct \w+ \{(.*?)\}\s*(\w+);", text, flags=re.S):
        fields = []
        for declaration in body.split(";"):
            if not declaration.strip():
                continue
            pointer = re.search(r"\(\s*\*\s*(\w+)\s*\)", declaration)
            plain = re.search(r"(\w+)\s*(?:\[\w+\]\s*)?$", declaration.strip())
            fields.append((pointer or plain).group(1))
        yield name, fields


def enumerators_of(text):
    for body in re.findall(r"typedef enum \w+ \{(.*?)\}", text, flags=re.S):
        yield from re.findall(r"(\w+)\s*=", body)


def layout(options):
    headers = sorted(options.include.glob("molfuse/*.h"))
    lines = []
    for header in headers:
        text = without_comments(header.read_text())
        for name, fields in structs_of(text):
            lines.append(f'std::printf("struct\\t{name}\\t%zu\\n", sizeof({name}));')
            for field in fields:
                lines.append(f'std::printf("field\\t{name}.{field}\\t%zu\\t%zu\\n", offsetof({name}, {field}), sizeof(static_cast<{name}*>(nullptr)->{field}));')
        for name in enumerators_of(text):
            lines.append(f'std::printf("enumerator\\t{name}\\t%lld\\n", static_cast<long long>({name}));')
    if not lines:
        sys.exit(f"{options.include}: no structs in molfuse/*.h")
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder, "layout.cpp"), pathlib.Path(folder, "layout")
        includes = "".join(f"#include <molfuse/{header.name}>\n" for header in headers)
        source.write_text(f"#include <cstddef>\n#include <cstdio>\n{includes}int main() {{\n" + "\n".join(lines) + "\n}\n")
        subprocess.run([options.cxx, "-std=c++17", f"-I{options.include}", source, "-o", program], check=True)
        return subprocess.run([program], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def symbols(options):
    output = subprocess.run([options.nm, "-D", "--defined-only", options.library], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [f"symbol\t{line.split()[-1]}" for line in output.splitlines()]


def rows(lines):
    """What is described -> its numbers, in order."""
    split = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {(kind, name): numbers for kind, name, *numbers in split}


def differences(old, new):
    """(text, whether programs compiled before are harmed)"""
    for (kind, name), numbers in old.items():
        if (kind, name) not in new:
            yield f"{kind} {name} is gone", True
        elif new[kind, name] != numbers:
            # A struct may grow: struct_size tells the library how much of it the caller has.
            grown = kind == "struct" and old.get(("field", f"{name}.struct_size")) and int(new[kind, name][0]) > int(numbers[0])
            yield f"{kind} {name}: was {', '.join(numbers)}, is {', '.join(new[kind, name])}", not grown
    for kind, name in new:
        if (kind, name) in old:
            continue
        owner = ("struct", name.split(".")[0])
        # In what was padding there is something in callers' memory that nobody has set.
        inside = kind == "field" and owner in old and int(new[kind, name][0]) < int(old[owner][0])
        foreign = kind == "symbol" and not name.startswith("molfuse_")
        yield f"{kind} {name} is new" + (", inside the size that its struct had" if inside else ", not of the C interface" if foreign else ""), \
            bool(inside or foreign)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nm", default="nm")
    parser.add_argument("--cxx", default="c++")
    parser.add_argument("--library", required=True)
    parser.add_argument("--include", required=True, type=pathlib.Path)
    parser.add_argument("--list", required=True, type=pathlib.Path)
    parser.add_argument("--update", action="store_true", help="write the list instead of comparing with it")
    options = parser.parse_args()
    lines = sorted(symbols(options)) + layout(options)
    new = rows(lines)
    old = rows(options.list.read_text().splitlines()) if options.list.is_file() else {}
    found = list(differences(old, new))
    if options.update:
        options.list.write_text(HEAD + "\n".join(lines) + "\n")
    for text, harmful in found:
        print(f"{text} ({'breaks programs compiled before: raise the version that SONAME holds' if harmful else 'compatible'})")
    if found and not options.update:
        print(f"The binary interface is not that of {options.list.name}. If that is meant: the same command with --update, and commit the list:\n  "
              + " ".join([sys.executable, *sys.argv, "--update"]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
