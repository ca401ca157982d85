# SPDX-License-Identifier: Apache-2.0
"""Python's safetensors at the other end: `read FILE` prints name, type, shape and bytes of each tensor, `write FILE` makes a file."""
import struct
import sys

import safetensors

command, file = sys.argv[1:]
if command == "read":
    with open(file, "rb") as stream:
        for name, tensor in sorted(safetensors.deserialize(stream.read())):
            print(name, tensor["dtype"], ",".join(map(str, tensor["shape"])), bytes(tensor["data"]).hex(), sep=";")
else:
    safetensors.serialize_file({
        "module.layer.weight": {"dtype": "float32", "shape": [2, 2], "data": struct.pack("<4f", 1, -2, 0.5, 4)},
        "module.layer.bias": {"dtype": "float16", "shape": [2], "data": struct.pack("<2e", 0.25, -8)},
        "module.steps": {"dtype": "int32", "shape": [], "data": struct.pack("<i", -7)},
    }, file, {"format": "pt"})
