# SPDX-License-Identifier: Apache-2.0
"""What check.py and bench.py share: the families, the options, the library, and where others' code is found."""
import ctypes
import importlib
import os
import pathlib
import sys

import torch

# Each has its module in cases/.
FAMILIES = ("graph_attention", "vae_loss", "encoder_epilogue", "latent_concat", "reparameterize", "linear_vae_loss", "attention")


def add_options(parser):
    parser.add_argument("--only", choices=FAMILIES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--output", type=pathlib.Path, required=True)


def families(options):
    """Name and module of every family that was asked for."""
    return [(name, importlib.import_module(f"cases.{name}")) for name in ([options.only] if options.only else FAMILIES)]


def set_attention_backend(name):
    """"auto", "own" or "cudnn", for all later calls."""
    library = ctypes.CDLL(str(pathlib.Path(os.environ["MOLFUSE_LIBRARIES"]) / "libmolfuse.so"))
    if library.molfuse_set_attention_backend(name.encode()) != 0:
        raise ValueError(f"no attention backend {name}")


def load(options):
    torch.ops.load_library(str(pathlib.Path(os.environ["MOLFUSE_LIBRARIES"]) / "libmolfuse_torch.so"))
    peers = pathlib.Path(__file__).resolve().parent.parent / "peers"
    # What is installed comes before what lies in peers/site.
    sys.path += [str(peers), str(peers / "site")]
    if options.dry_run:
        # Read when a kernel is declared: Triton's own run on the CPU, for its results alone.
        os.environ["TRITON_INTERPRET"] = "1"
