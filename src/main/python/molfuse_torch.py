# SPDX-License-Identifier: Apache-2.0
"""Loads libmolfuse_torch into PyTorch; torch.ops.molfuse then has its operators.

torch.ops.load_library does the same. This looks first whether the library was built for the libtorch that is running: otherwise the linker
would name some symbol of C++ that it misses, or worse, none.
"""
import os
import pathlib
import re


def libtorch_version(library):
    """The version of libtorch that a libmolfuse_torch was built for, as "2.10.0"."""
    try:
        found = re.search(rb"molfuse_torch for libtorch (\d[\w.]*)\0", pathlib.Path(library).read_bytes())
    except OSError as failure:
        raise ImportError(f"there is no {library}: {failure.strerror}") from failure
    if not found:
        raise ImportError(f"{library} is no libmolfuse_torch")
    return found[1].decode()


def mismatch(library):
    """Why the library cannot be loaded into this PyTorch; None if it can."""
    import torch
    built, here = libtorch_version(library), torch.__version__.split("+")[0]
    if built == here:
        return None
    return (f"{library} was built for libtorch {built}, and this is PyTorch {here}: install torch=={built}, or build molfuse with "
            f"-DMOLFUSE_TORCH_ROOT={pathlib.Path(torch.__file__).parent}")


def load(library=None):
    """Loads libmolfuse_torch.so: the one given, that in $MOLFUSE_LIBRARIES, or the one beside this file. ImportError says why it cannot."""
    if library is None:
        library = pathlib.Path(os.environ.get("MOLFUSE_LIBRARIES") or pathlib.Path(__file__).resolve().parent) / "libmolfuse_torch.so"
    why = mismatch(library)
    if why:
        raise ImportError(why)
    import torch
    torch.ops.load_library(str(library))
