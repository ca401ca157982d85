# SPDX-License-Identifier: Apache-2.0
"""The graph attention operator in Triton, for comparison: fused, without atomics, with f32 accumulation, as one would write it there.

A program has one node and a group of its heads, and goes through the node's edges a few at a time. Forward keeps the running maximum and
sum of the softmax. Backward by target leaves each edge's weight and score gradient, two numbers a head, to backward by source, which then
gathers only rows of query and of the upstream gradient. Arguments and meaning are those of torch.ops.molfuse.graph_attention."""
import math
import os

import numpy
import torch
import triton
import triton.language as tl

# Triton's own run on the CPU, for results alone: nothing can be tuned there.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED and tuple(map(int, numpy.__version__.split(".")[:2])) >= (2, 4):
    raise ImportError(f"Triton's interpreter takes arrays of one element for numbers, NumPy {numpy.__version__} does not: 2.3 does")

# The tuning tells graphs apart by these; no kernel reads them, and none is compiled anew for them.
_COUNTS = ("nodes", "edges")


@triton.jit
def _tile(node, HEADS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr):
    """Heads, and offsets and mask of their channels within one node's row, as a [1, BLOCK_H, BLOCK_C] tile."""
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    channel = tl.arange(0, BLOCK_C)
    offset = (head[:, None] * CHANNELS + channel[None, :])[None, :, :]
    inside = ((head[:, None] < HEADS) & (channel[None, :] < CHANNELS))[None, :, :]
    return head, offset, inside


@triton.jit
def _rows(pointer, row, present, offset, inside, ROW: tl.constexpr):
    """Rows of a [., H, C] tensor as an f32 tile; 0 where there is none."""
    return tl.load(pointer + row.to(tl.int64)[:, None, None] * ROW + offset, mask=present[:, None, None] & inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=_COUNTS)
def _forward(query, key, value, row_ptr, source, out, lse, scale, nodes, edges, HEADS: tl.constexpr, CHANNELS: tl.constexpr,
             BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr):
    node = tl.program_id(0)
    head, offset, inside = _tile(node, HEADS, CHANNELS, BLOCK_H, BLOCK_C)
    own = node.to(tl.int64) * (HEADS * CHANNELS) + offset
    begin, end = tl.load(row_ptr + node), tl.load(row_ptr + node + 1)
    # Scores are kept in units of log 2 while they are exponents of exp2.
    q = tl.load(query + own, mask=inside, other=0.0).to(tl.float32) * (scale * 1.4426950408889634)
    largest = tl.full((BLOCK_H,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_H,), tl.float32)
    sums = tl.zeros((BLOCK_H, BLOCK_C), tl.float32)
    for first in range(begin, end, BLOCK_E):
        edge = first + tl.arange(0, BLOCK_E)
        present = edge < end
        neighbour = tl.load(source + edge, mask=present, other=0)
        k = _rows(key, neighbour, present, offset, inside, HEADS * CHANNELS)
        v = _rows(value, neighbour, present, offset, inside, HEADS * CHANNELS)
        score = tl.where(present[:, None], tl.sum(q * k, 2), float("-inf"))
        larger = tl.maximum(largest, tl.max(score, 0))
        correction = tl.exp2(largest - larger)
        weight = tl.exp2(score - larger[None, :])
        total = total * correction + tl.sum(weight, 0)
        sums = sums * correction[:, None] + tl.sum(weight[:, :, None] * v, 0)
        largest = larger
    # A node without edges: zeros, and an lse that nothing reads.
    total = tl.where(begin == end, 1.0, total)
    result = sums / total[:, None]
    tl.store(out + own, result[None, :, :].to(out.dtype.element_ty), mask=inside)
    tl.store(lse + node.to(tl.int64) * HEADS + head, largest + tl.log2(total), mask=head < HEADS)


@triton.jit(do_not_specialize=_COUNTS)
def _backward_by_target(query, key, value, row_ptr, source, out, lse, grad_out, grad_query, weights, grad_scores, scale, nodes,
                        edges, HEADS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr,
                        BLOCK_C: tl.constexpr):
    node = tl.program_id(0)
    head, offset, inside = _tile(node, HEADS, CHANNELS, BLOCK_H, BLOCK_C)
    own = node.to(tl.int64) * (HEADS * CHANNELS) + offset
    begin, end = tl.load(row_ptr + node), tl.load(row_ptr + node + 1)
    q = tl.load(query + own, mask=inside, other=0.0).to(tl.float32) * (scale * 1.4426950408889634)
    upstream = tl.load(grad_out + own, mask=inside, other=0.0).to(tl.float32)
    expected = tl.sum(tl.load(out + own, mask=inside, other=0.0).to(tl.float32) * upstream, 2)
    normaliser = tl.load(lse + node.to(tl.int64) * HEADS + head, mask=head < HEADS, other=0.0)
    sums = tl.zeros((BLOCK_H, BLOCK_C), tl.float32)
    for first in range(begin, end, BLOCK_E):
        edge = first + tl.arange(0, BLOCK_E)
        present = edge < end
        neighbour = tl.load(source + edge, mask=present, other=0)
        k = _rows(key, neighbour, present, offset, inside, HEADS * CHANNELS)
        v = _rows(value, neighbour, present, offset, inside, HEADS * CHANNELS)
        weight = tl.exp2(tl.sum(q * k, 2) - normaliser[None, :])
        grad_score = tl.where(present[:, None], weight * (tl.sum(upstream * v, 2) - expected) * scale, 0.0)
        sums += tl.sum(grad_score[:, :, None] * k, 0)
        place = edge.to(tl.int64)[:, None] * HEADS + head[None, :]
        wanted = present[:, None] & (head < HEADS)[None, :]
        tl.store(weights + place, weight, mask=wanted)
        tl.store(grad_scores + place, grad_score, mask=wanted)
    tl.store(grad_query + own, sums[None, :, :].to(grad_query.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_COUNTS)
def _backward_by_source(query, row_ptr_t, target, edge_id, grad_out, weights, grad_scores, grad_key, grad_value, nodes, edges,
                        HEADS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr):
    node = tl.program_id(0)
    head, offset, inside = _tile(node, HEADS, CHANNELS, BLOCK_H, BLOCK_C)
    own = node.to(tl.int64) * (HEADS * CHANNELS) + offset
    begin, end = tl.load(row_ptr_t + node), tl.load(row_ptr_t + node + 1)
    key_sums = tl.zeros((BLOCK_H, BLOCK_C), tl.float32)
    value_sums = tl.zeros((BLOCK_H, BLOCK_C), tl.float32)
    for first in range(begin, end, BLOCK_E):
        position = first + tl.arange(0, BLOCK_E)
        present = position < end
        neighbour = tl.load(target + position, mask=present, other=0)
        place = tl.load(edge_id + position, mask=present, other=0).to(tl.int64)[:, None] * HEADS + head[None, :]
        wanted = present[:, None] & (head < HEADS)[None, :]
        q = _rows(query, neighbour, present, offset, inside, HEADS * CHANNELS)
        upstream = _rows(grad_out, neighbour, present, offset, inside, HEADS * CHANNELS)
        key_sums += tl.sum(tl.load(grad_scores + place, mask=wanted, other=0.0)[:, :, None] * q, 0)
        value_sums += tl.sum(tl.load(weights + place, mask=wanted, other=0.0)[:, :, None] * upstream, 0)
    tl.store(grad_key + own, key_sums[None, :, :].to(grad_key.dtype.element_ty), mask=inside)
    tl.store(grad_value + own, value_sums[None, :, :].to(grad_value.dtype.element_ty), mask=inside)


def _tuned(kernel):
    """Tiles of edges x heads by warps: few edges for molecules, more for nodes with many. Tuned anew for every graph, to its own best."""
    configs = [triton.Config({"BLOCK_E": edges, "BLOCK_H": heads}, num_warps=warps) for edges, heads, warps in TILES]
    return triton.autotune(configs, key=["nodes", "edges", "HEADS", "CHANNELS"], prune_configs_by={"early_config_prune": _prune},
                           do_bench=lambda call, quantiles: triton.testing.do_bench(call, warmup=4, rep=20, quantiles=quantiles))(kernel)


TILES = ((1, 8, 1), (4, 8, 2), (1, 8, 4), (1, 1, 1), (4, 1, 1), (16, 1, 4), (2, 8, 1), (2, 1, 1))


def _prune(configs, named, **others):
    """Neither mostly empty tiles nor such as cannot stay in registers."""
    heads, block_c = (named | others)["HEADS"], (named | others)["BLOCK_C"]

    def fits(config):
        block_h = config.kwargs["BLOCK_H"]
        return block_h < 2 * heads and 2 <= config.kwargs["BLOCK_E"] * block_h * block_c / (32 * config.num_warps) <= 32
    return [config for config in configs if fits(config)] or configs[3:4]


_tuned_forward, _tuned_by_target, _tuned_by_source = map(_tuned, (_forward, _backward_by_target, _backward_by_source))


def _launch(tuned, plain, tile, query, edges, *arguments):
    nodes, heads, channels = query.shape
    sizes = {"HEADS": heads, "CHANNELS": channels, "BLOCK_C": triton.next_power_of_2(channels)}
    if tile is not None:
        sizes |= {"BLOCK_E": tile[0], "BLOCK_H": tile[1], "num_warps": tile[2]}
    (tuned if tile is None else plain)[lambda meta: (nodes, triton.cdiv(heads, meta["BLOCK_H"]))](*arguments, nodes, edges, **sizes)


class _GraphAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, row_ptr, source, row_ptr_t, target, edge_id, scale, tile):
        out = torch.empty_like(query)
        lse = torch.empty(query.shape[:2], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, row_ptr, source, row_ptr_t, target, edge_id, out, lse)
        ctx.scale, ctx.tile = scale, tile
        _launch(_tuned_forward, _forward, tile, query, source.numel(), query, key, value, row_ptr, source, out, lse, scale)
        return out

    @staticmethod
    def backward(ctx, grad_out):
        query, key, value, row_ptr, source, row_ptr_t, target, edge_id, out, lse = ctx.saved_tensors
        grad_out, edges = grad_out.contiguous(), source.numel()
        grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
        weights, grad_scores = (torch.empty(edges, query.shape[1], dtype=torch.float32, device=query.device) for _ in range(2))
        _launch(_tuned_by_target, _backward_by_target, ctx.tile, query, edges, query, key, value, row_ptr, source, out, lse, grad_out,
                grad_query, weights, grad_scores, ctx.scale)
        _launch(_tuned_by_source, _backward_by_source, ctx.tile, query, edges, query, row_ptr_t, target, edge_id, grad_out, weights,
                grad_scores, grad_key, grad_value)
        return grad_query, grad_key, grad_value, *(None,) * 7


def graph_attention(query, key, value, row_ptr, source, row_ptr_t, target, edge_id, scale=None, tile=None):
    """query, key, value [V,H,C], contiguous; int32 indices. tile: one of TILES, instead of the best of them."""
    if query.dim() != 3 or key.shape != query.shape or value.shape != query.shape:
        raise ValueError(f"query, key, value: expected one shape [V,H,C], got {[tuple(x.shape) for x in (query, key, value)]}")
    if any(x.dtype != torch.int32 for x in (row_ptr, source, row_ptr_t, target, edge_id)):
        raise ValueError("row_ptr, source, row_ptr_t, target, edge_id: expected int32")
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    scale = 1 / math.sqrt(query.shape[2]) if scale is None else scale
    return _GraphAttention.apply(query, key, value, row_ptr, source, row_ptr_t, target, edge_id, scale, tile)
