#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds what the compiler made of the kernels against the committed table.

    check_kernels.py --cuobjdump PROGRAM --table FILE [--update] OBJECT...

A row of the table is a kernel on an architecture: registers, bytes of stack (spilled registers, mostly), static shared memory, theoretical
occupancy at the kernel's largest block (registers and threads; dynamic shared memory is not known here), and how many instructions of the
kernel read global memory (into registers or, asynchronously, into shared memory) and write it 16 bytes at a time or multiply on tensor
cores. A row that got worse fails, and so does a kernel without a row; --update writes the table anew, which is then to be looked at and
committed. Stack is 0 except where the table's reason column says why.
"""
import argparse
import csv
import os
import pathlib
import re
import subprocess
import sys

COLUMNS = ("kernel", "architecture", "registers", "stack", "shared", "occupancy", "load128", "store128", "mma", "reason")
REGISTERS_OF_SM, REGISTER_UNIT, THREADS_OF_SM, BLOCKS_OF_SM = 65536, 256, 2048, 32


def output(command, tool_folder):
    environment = dict(os.environ, PATH=f"{tool_folder}{os.pathsep}{os.environ.get('PATH', '')}")
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def occupancy(registers, threads):
    warps = (threads + 31) // 32
    by_registers = REGISTERS_OF_SM // (((registers * 32 + REGISTER_UNIT - 1) // REGISTER_UNIT * REGISTER_UNIT) * warps)
    blocks = min(by_registers, THREADS_OF_SM // (warps * 32), BLOCKS_OF_SM)
    return blocks * warps * 32 / THREADS_OF_SM


def demangled(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True).stdout
    result = {}
    for name, readable in zip(names, text.splitlines()):
        readable = re.sub(r"molfuse::|\(anonymous namespace\)::|^void ", "", readable)
        # Without the arguments: the part in parentheses at the end.
        result[name] = re.sub(r"\((?:[^()]|\([^()]*\))*\)$", "", readable).replace("> >", ">>")
    return result


def facts(cuobjdump, objects):
    """{(mangled, architecture): row}"""
    tools = str(pathlib.Path(cuobjdump).parent)
    rows = {}
    for path in objects:
        threads, section, architecture, expect = {}, None, None, False
        for line in output([cuobjdump, "-elf", path], tools).splitlines():
            if match := re.match(r"arch = (\S+)", line):
                architecture = match.group(1)
            elif match := re.match(r"\.nv\.info\.(\S+)", line):
                section = match.group(1)
            elif "EIATTR_MAX_THREADS" in line:
                expect = True
            elif expect and (match := re.search(r"Value:\s*0x([0-9a-f]+)", line)):
                threads[section, architecture] = int(match.group(1), 16)
                expect = False
        name = None
        for line in output([cuobjdump, "--dump-resource-usage", path], tools).splitlines():
            if match := re.match(r"arch = (\S+)", line):
                architecture = match.group(1)
            elif match := re.match(r"\s*Function (\S+):", line):
                name = match.group(1)
            elif name and (match := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", line)):
                registers, stack, shared = map(int, match.groups())
                limit = threads.get((name, architecture), 1024)
                rows[name, architecture] = {"registers": registers, "stack": stack, "shared": shared,
                                            "occupancy": round(100 * occupancy(registers, limit)), "load128": 0, "store128": 0, "mma": 0}
                name = None
        for line in output([cuobjdump, "-sass", path], tools).splitlines():
            if match := re.match(r"\s*code for (\S+)", line):
                architecture = match.group(1)
            elif match := re.match(r"\s*Function : (\S+)", line):
                row = rows[match.group(1), architecture]
            elif re.search(r"\bLDG(?:STS)?\.\S*128", line):
                row["load128"] += 1
            elif re.search(r"\bSTG\.\S*128", line):
                row["store128"] += 1
            elif re.search(r"\b[HIQ]G?MMA\.", line):
                row["mma"] += 1
    names = demangled(sorted({name for name, _ in rows}))
    return {(names[name], architecture): row for (name, architecture), row in rows.items()}


def complaints(key, row, known):
    worse = [f"{column} {known[column]} -> {row[column]}" for column in ("registers", "stack", "shared") if row[column] > known[column]]
    # A few registers more that cost no block are the compiler's affair.
    if worse and all(text.startswith("registers") for text in worse) and row["occupancy"] >= known["occupancy"]:
        worse = []
    if row["occupancy"] < known["occupancy"]:
        worse.append(f"occupancy {known['occupancy']} % -> {row['occupancy']} %")
    worse += [f"{column} {known[column]} -> 0" for column in ("load128", "store128", "mma") if known[column] and not row[column]]
    return [f"{' '.join(key)}: {text}" for text in worse]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuobjdump", required=True)
    parser.add_argument("--table", required=True, type=pathlib.Path)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("objects", nargs="+")
    options = parser.parse_args()
    rows = facts(options.cuobjdump, options.objects)
    table = {}
    if options.table.is_file():
        with open(options.table, newline="") as file:
            for line in csv.DictReader(file, delimiter="\t"):
                table[line["kernel"], line["architecture"]] = {
                    column: line[column] if column == "reason" else int(line[column]) for column in COLUMNS[2:]}
    if options.update:
        with open(options.table, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
            writer.writeheader()
            for key in sorted(rows):
                reason = table.get(key, {}).get("reason", "") if rows[key]["stack"] else ""
                writer.writerow({"kernel": key[0], "architecture": key[1], "reason": reason, **rows[key]})
    wrong = []
    for key, row in sorted(rows.items()):
        if not options.update:
            wrong += complaints(key, row, table[key]) if key in table else [f"{' '.join(key)}: is not in the table"]
        if row["stack"] and not table.get(key, {}).get("reason"):
            wrong.append(f"{' '.join(key)}: {row['stack']} bytes of stack without a reason in the table")
    if not options.update:
        wrong += [f"{' '.join(key)}: is in the table, but there is no such kernel" for key in sorted(table) if key not in rows]
    if wrong:
        print("\n".join(wrong))
        print(f"{len(wrong)} complaints; if the change is meant, write the table with --update")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
