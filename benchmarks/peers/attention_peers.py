# SPDX-License-Identifier: Apache-2.0
"""Others' attention on the problems of cases/attention.py: query, key and value [B,H,N,D], or packed [T,H,D]."""
import warnings

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

BACKENDS = {"flash": torch.backends.cuda.enable_flash_sdp, "cudnn": torch.backends.cuda.enable_cudnn_sdp,
            "mem_efficient": torch.backends.cuda.enable_mem_efficient_sdp, "math": torch.backends.cuda.enable_math_sdp}


def relative_scores(relative, n):
    """[H,N,N] of [H,2R+1]. As windows of one line: an index's gradient would sort as many numbers as there are scores."""
    radius = relative.shape[1] // 2
    distance = torch.arange(1 - n, n, device=relative.device).clamp(-radius, radius) + radius
    return relative[:, distance].unfold(1, n, 1).flip(1)


def additive_mask(problem, bias, relative, n, dtype):
    """What there is of biases and masks beside causality, as one tensor that is added."""
    mask = bias
    if relative is not None:
        mask = relative_scores(relative, n).to(dtype)[None]
    if problem.lengths is not None:
        hidden = torch.arange(n, device=problem.lengths.device) >= problem.lengths[:, None, None, None]
        mask = mask.masked_fill(hidden, -torch.inf)
    if mask is not None and problem.causal:
        # Both at once are refused.
        mask = mask.masked_fill(torch.ones(n, n, dtype=torch.bool, device=mask.device).triu(1), -torch.inf)
    return mask


def sdpa(problem, backend):
    """torch.nn.functional.scaled_dot_product_attention with one backend; packed sequences as nested tensors."""
    attend = torch.nn.functional.scaled_dot_product_attention

    def run(query, key, value, *rest):
        # Less of the host's time than the context manager for it takes.
        for name, enable in BACKENDS.items():
            enable(name == backend)
        if problem.starts is not None:
            starts = problem.starts.long()
            nested = [torch.nested.nested_tensor_from_jagged(x, starts, min_seqlen=1, max_seqlen=problem.longest).transpose(1, 2)
                      for x in (query, key, value)]
            return attend(*nested).transpose(1, 2).values()
        bias, relative = problem.biases(rest)
        mask = additive_mask(problem, bias, relative, query.shape[2], query.dtype)
        return attend(query, key, value, attn_mask=mask, is_causal=problem.causal and mask is None)

    known = False

    def call(*inputs):
        nonlocal known
        if known:
            return run(*inputs)
        # Why one is refused is in the warnings. What is disabled here is none of the reasons.
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                out = run(*inputs)
            except RuntimeError as refused:
                texts = [str(warning.message).split(" (Triggered")[0].strip() for warning in said]
                why = [text for text in texts if text and not text.endswith(("not used because:", "runtime disabled."))]
                raise RuntimeError("; ".join(why) or str(refused)) from refused
        known = True
        return out
    return call


def flex(problem, device):
    """flex_attention with the same scores and masks. Which blocks are masked is known before it is timed."""
    block_mask, n = None, problem.longest
    if problem.starts is not None:
        n = int(problem.starts[-1])
        if n > 1 << 16:
            raise ValueError(f"a mask of {n} x {n} is too large to be made")
        sequence = torch.repeat_interleave(torch.arange(len(problem.starts) - 1, device=device), problem.starts.diff().long())
        block_mask = create_block_mask(lambda b, h, i, j: sequence[i] == sequence[j], None, None, n, n, device=device)
    elif problem.causal:
        block_mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, n, n, device=device)
    elif problem.lengths is not None:
        lengths = problem.lengths
        block_mask = create_block_mask(lambda b, h, i, j: j < lengths[b], len(lengths), None, n, n, device=device)

    def call(query, key, value, *rest):
        bias, relative = problem.biases(rest)
        score = None
        if bias is not None:
            def score(s, b, h, i, j):
                return s + bias[b, h, i, j]
        elif relative is not None:
            radius = relative.shape[1] // 2

            def score(s, b, h, i, j):
                return s + relative[h, (j - i).clamp(-radius, radius) + radius]
        if problem.starts is not None:
            query, key, value = (x.transpose(0, 1)[None] for x in (query, key, value))
        out = flex_attention(query, key, value, score_mod=score, block_mask=block_mask)
        return out[0].transpose(0, 1) if problem.starts is not None else out
    return call


def flash_attn(problem):
    """The package of that name. It has no biases that are tensors."""
    from flash_attn import flash_attn_func, flash_attn_varlen_func
    if problem.bias or problem.relative:
        raise ValueError("has no additive bias")
    if problem.starts is not None:
        return lambda query, key, value: flash_attn_varlen_func(query, key, value, problem.starts, problem.starts, problem.longest,
                                                                problem.longest)
    return lambda *inputs: flash_attn_func(*(x.transpose(1, 2) for x in inputs), causal=problem.causal).transpose(1, 2)


def xformers(problem):
    from xformers.ops import LowerTriangularMask, fmha, memory_efficient_attention
    if problem.starts is not None:
        packed = fmha.attn_bias.BlockDiagonalMask.from_seqlens(problem.starts.diff().tolist())
        return lambda *inputs: memory_efficient_attention(*(x[None] for x in inputs), attn_bias=packed)[0]

    def call(query, key, value, *rest):
        bias, relative = problem.biases(rest)
        mask = additive_mask(problem, bias, relative, query.shape[2], query.dtype)
        if mask is not None:
            mask = mask.expand(*query.shape[:3], query.shape[2])
        elif problem.causal:
            mask = LowerTriangularMask()
        return memory_efficient_attention(*(x.transpose(1, 2) for x in (query, key, value)), attn_bias=mask).transpose(1, 2)
    return call
