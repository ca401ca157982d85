# SPDX-License-Identifier: Apache-2.0
"""Reads the record files of `molfuse prepare` (docs/molecule_records.md) and numbers their symbols as molfuse's vocabulary does."""
import json
import pathlib
import struct
from typing import NamedTuple

import numpy

MAGIC = b"\x8aMFR\r\n\x1a\n"
SOS, EOS, UNK = 1, 2, 3
SPECIAL = ("<pad>", "<sos>", "<eos>", "<unk>")


class Molecule(NamedTuple):
    features: numpy.ndarray  # f32 [V,6]: atomic number, degree, formal charge, hybridisation, aromaticity, unpaired electrons
    edges: numpy.ndarray  # int64 [2,E]: where each edge comes from and goes to, sorted by the latter
    tokens: list  # <sos>, symbols, <eos>
    smiles: str


def _crc_entry(value):
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC = [_crc_entry(value) for value in range(256)]


def crc32c(data):
    """CRC-32C: zlib's is of another polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def vocabulary(counts, most):
    """Token to number: the special ones, then symbols by falling count, ties by their text; at most `most` in all."""
    symbols = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))[:most - len(SPECIAL)]
    return {token: number for number, token in enumerate([*SPECIAL, *symbols])}


def _molecule(data, at, token_of, max_length):
    nodes, edges, symbols, characters = struct.unpack_from("<4H", data, at)
    at += 8
    rows = numpy.frombuffer(data, numpy.uint8, 4 * nodes, at).reshape(nodes, 4)
    rest = rows[:, 3]
    features = numpy.stack([rows[:, 0], rows[:, 1], rows[:, 2].view(numpy.int8), rest & 7, rest >> 3 & 1, rest >> 4], 1, dtype=numpy.float32,
                           casting="unsafe")
    at += 4 * nodes
    width = 1 if nodes <= 256 else 2
    source = numpy.frombuffer(data, f"<u{width}", edges, at)
    at += width * edges
    tokens = [token_of[symbol] for symbol in numpy.frombuffer(data, "<u2", symbols, at)[:max_length - 2]]
    at += 2 * symbols
    target = numpy.repeat(numpy.arange(nodes), rows[:, 1])
    return Molecule(features, numpy.stack([source, target]).astype(numpy.int64), [SOS, *tokens, EOS], data[at:at + characters].decode("ascii"))


def _read(path, entry, ids, most, max_length):
    """Molecules of one file, whose checksums are verified as far as it is read."""
    data = path.read_bytes()
    if data[:8] != MAGIC or crc32c(data[:60]) != struct.unpack_from("<I", data, 60)[0]:
        raise ValueError(f"{path}: no record file, or one that was cut off")
    version, per_block, records, size, tables, symbols, symbol_bytes, tables_crc = struct.unpack_from("<2I3Q3I", data, 8)
    if version != 1 or size != len(data):
        raise ValueError(f"{path}: version {version}, {len(data)} of {size} bytes; read are whole files of version 1")
    if crc32c(data[tables:]) != tables_crc:
        raise ValueError(f"{path}: its tables are damaged")
    if f"{struct.unpack_from('<I', data, 60)[0]:08x}" != entry["checksum"] or records != entry["molecules"]:
        raise ValueError(f"{path}: not the file that dataset.json was written with")
    blocks = -(-records // per_block)
    offsets = struct.unpack_from(f"<{records}I", data, tables + 16 * blocks)
    at, token_of = tables + 16 * blocks + 4 * records, []
    for _ in range(symbols):
        length, = struct.unpack_from("<H", data, at)
        token_of.append(ids.get(data[at + 2:at + 2 + length].decode(), UNK))
        at += 2 + length
    for record in range(min(records, most)):
        position, length, crc = struct.unpack_from("<Q2I", data, tables + 16 * (record // per_block))
        if record % per_block == 0 and crc32c(data[position:position + length]) != crc:
            raise ValueError(f"{path}: block {record // per_block} is damaged")
        yield _molecule(data, position + offsets[record], token_of, max_length)


def load(folder, split, most, max_vocabulary, max_length):
    """The first `most` molecules of a split, and the vocabulary of the training split. Sequences are cut to `max_length` tokens."""
    folder = pathlib.Path(folder)
    dataset = json.loads((folder / "dataset.json").read_text())
    if (dataset["format"], dataset["version"]) != ("molfuse molecules", 1):
        raise ValueError(f"{folder}: {dataset['format']}, version {dataset['version']}; read is version 1 of molfuse molecules")
    ids = vocabulary(dataset["symbols"], max_vocabulary)
    molecules = []
    for entry in dataset["splits"][split]["files"]:
        molecules += _read(folder / entry["name"], entry, ids, most - len(molecules), max_length)
    return molecules, ids
