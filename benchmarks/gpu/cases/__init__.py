# SPDX-License-Identifier: Apache-2.0
"""One module per operator family: check(), a random problem for check.py; cases(), what bench.py times, in order of
importance; check_peers() where a peer is code
of this repository."""
import dataclasses
import importlib
from typing import Callable, NamedTuple, Optional

import torch

TYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


class Peer(NamedTuple):
    name: str
    call: Optional[Callable]
    compiled: bool = False
    absent: str = ""  # why there is no call


@dataclasses.dataclass
class Case:
    name: str
    dtype: str
    bytes: int  # the fewest that must be moved
    sets: list  # of (inputs, upstream gradient)
    ours: Callable
    peers: list
    flops: Optional[int] = None
    matrix: bool = False  # whether the operations are of a kind that tensor cores do, so that their rate is a floor, too
    small: bool = False  # host overhead shows
    forward: bool = False  # whether it is also timed alone
    same_result: bool = True  # False: peers draw other random numbers
    backends: tuple = ()  # of attention, each of which is timed by itself


def eager_and_compiled(name, function):
    return [Peer(name, function), Peer("torch.compile" if name == "eager" else f"{name}, torch.compile", function, compiled=True)]


def optional(name, module, make, compiled=True):
    """A peer from a module that may not be there; make(module) gives its call."""
    try:
        call = make(importlib.import_module(module))
    except Exception as failure:  # whatever an import or a constructor may raise
        return [Peer(name, None, absent=reason(failure))]
    return eager_and_compiled(name, call) if compiled else [Peer(name, call)]


def reason(failure):
    return f"{type(failure).__name__}: {(str(failure).strip() or 'no message').splitlines()[0]}"[:200]


def leaf(*shape, dtype, device):
    return torch.randn(*shape, device=device).to(dtype).requires_grad_()


def input_sets(make, bytes_of_one, device):
    """Results of make() that together are larger than the second-level cache, as far as 64 of them are."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 1 << 20
    return [make() for _ in range(max(2, min(64, 1 + 2 * cache // max(1, bytes_of_one))))]


def size_of(dtype):
    return torch.finfo(dtype).bits // 8
