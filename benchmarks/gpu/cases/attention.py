# SPDX-License-Identifier: Apache-2.0
"""attention, attention_varlen and attention_decode."""
import dataclasses
from typing import Optional

import torch

import common
from cases import TYPES, Case, input_sets, leaf, optional, size_of
from exact import Wrong, close, compare, strided

KINDS = ("plain", "causal", "causal relative", "padding bias", "varlen")
LENGTHS = (32, 128, 4, 512, 16, 64, 256, 2048, 8192)
# B H N N of a case; fewer where an operand would have more elements than this.
WORK, LARGEST = 1 << 28, 1 << 27
RADIUS = 32
# Whether the checks try cuDNN, and what came of it.
WITH_CUDNN = True
CUDNN = {}


@dataclasses.dataclass
class Problem:
    """What an attention has beside query, key and value. These are [B,H,N,D], or [T,H,D] where there are starts."""
    causal: bool = False
    bias: bool = False  # whether it follows query, key and value in the inputs
    relative: bool = False  # the same, after bias
    lengths: Optional[torch.Tensor] = None  # keys of each sequence
    starts: Optional[torch.Tensor] = None  # of the packed sequences' queries, int32 [B+1]
    key_starts: Optional[torch.Tensor] = None
    longest: int = 0
    dropout: float = 0.0
    seed: int = 0
    kept: Optional[torch.Tensor] = None  # by dropout

    def biases(self, rest):
        rest = list(rest)
        bias = rest.pop(0) if self.bias else None
        return bias, rest.pop(0) if self.relative else None


def operator(problem):
    def call(query, key, value, *rest):
        bias, relative = problem.biases(rest)
        if problem.starts is not None:
            return torch.ops.molfuse.attention_varlen(query, key, value, problem.starts, problem.key_starts, problem.longest,
                                                      problem.longest, relative, problem.causal)
        return torch.ops.molfuse.attention(query, key, value, bias, relative, problem.lengths, problem.causal,
                                           dropout_p=problem.dropout, seed=problem.seed)
    return call


def scores_softmax_values(problem, query, key, value, bias=None, relative=None):
    """The formula."""
    n, m = query.shape[-2], key.shape[-2]
    score = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    place = torch.arange(m, device=query.device)
    distance = place - torch.arange(n, device=query.device)[:, None] - (m - n)
    if bias is not None:
        score = score + bias
    if relative is not None:
        radius = relative.shape[1] // 2
        score = score + relative[:, distance.clamp(-radius, radius) + radius]
    seen = distance <= 0 if problem.causal else torch.ones_like(distance, dtype=torch.bool)
    if problem.lengths is not None:
        seen = seen & (place < problem.lengths[:, None, None, None])
    # A row that sees nothing is 0, and so are its gradients: the first mask's gradient removes what the softmax made of it.
    weight = score.masked_fill(~seen, -torch.inf).softmax(-1).masked_fill(~seen, 0)
    if problem.kept is not None:
        weight = weight * problem.kept / (1 - problem.dropout)
    return weight @ value


def formula(problem):
    def call(query, key, value, *rest):
        bias, relative = problem.biases(rest)
        if problem.starts is None:
            return scores_softmax_values(problem, query, key, value, bias, relative)
        parts, starts, key_starts = [], problem.starts.tolist(), problem.key_starts.tolist()
        for n in range(len(starts) - 1):
            one = [x[a[n]:a[n + 1]].transpose(0, 1) for x, a in ((query, starts), (key, key_starts), (value, key_starts))]
            parts.append(scores_softmax_values(problem, *one, relative=relative).transpose(0, 1))
        return torch.cat(parts)
    return call


def check(pick, generator, dtype, device):
    form = pick.choice(("batch",) * 6 + ("varlen", "varlen", "decode"))
    d = pick.choice((8, 16, 24, 32, 40, 64, 72, 80, 96, 104, 128, 160, 192, 200, 256))
    h = pick.choice((1, 2, 3, 8))
    if form == "decode":
        return check_decode(pick, h, d, dtype, device)
    sizes = (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 65, 100, 127, 128, 129, 200, 256, 257, 300)
    problem = Problem(causal=pick.random() < 0.5, relative=pick.random() < 0.4)
    radius = pick.choice((0, 1, 3, 16, 40))
    extra = [torch.randn(h, 2 * radius + 1, device=device)] if problem.relative else []
    if form == "varlen":
        counts = [[pick.choice((0, *sizes)) for _ in range(pick.choice((1, 2, 6)))] for _ in range(2)]
        # As many keys as queries, as in self-attention, or numbers of their own.
        counts[1] = counts[0] if pick.random() < 0.6 else [pick.choice((0, *sizes)) for _ in counts[0]]
        problem.starts, problem.key_starts = (torch.tensor([0, *torch.tensor(c).cumsum(0).tolist()], dtype=torch.int32, device=device)
                                              for c in counts)
        problem.longest = max(counts[0] + counts[1])
        inputs = [torch.randn(sum(c), h, d, device=device) for c in (counts[0], counts[1], counts[1])] + extra
        describe = f"varlen {counts[0]} {counts[1]} H {h} D {d}"
    else:
        b, n, m = pick.choice((1, 2, 5)), pick.choice(sizes), pick.choice(sizes)
        m = n if pick.random() < 0.4 else m
        if pick.random() < 0.1:  # so many that blocks share them
            m = pick.choice((700, 1500))
        shape = []
        if pick.random() < 0.5:
            shape = [size if pick.random() < 0.6 else 1 for size in (b, h, n, m)]
            while len(shape) > 1 and shape[0] == 1 and pick.random() < 0.5:
                shape.pop(0)
            problem.bias = True
            extra.insert(0, torch.randn(shape, device=device))
        if pick.random() < 0.4:
            problem.lengths = torch.randint(0, m + 1, (b,), generator=generator).to(device, pick.choice((torch.int32, torch.int64)))
        if pick.random() < 0.15 and m <= 256:
            drop(problem, pick, (b, h, n, m), device)
        inputs = [torch.randn(b, h, size, d, device=device) for size in (n, m, m)] + extra
        describe = f"B {b} H {h} N {n} M {m} D {d} bias {shape}{' lengths' if problem.lengths is not None else ''} dropout {problem.dropout}"
    describe += f"{' causal' if problem.causal else ''}{f' radius {radius}' if problem.relative else ''}"
    layout, wide = pick.choice(("dense", "dense", "permuted", "gaps")), pick.random() < 0.3
    call = operator(problem)

    def ours(*inputs):
        operands, extra = inputs[:3], inputs[3:]
        if layout == "permuted":
            # The memory of [B,N,H,D], or of [H,T,D].
            operands = [x.transpose(-3, -2).contiguous().transpose(-3, -2) for x in operands]
        elif layout == "gaps":
            operands = [strided(x) for x in operands]
        return call(*operands, *((x.float() for x in extra) if wide else extra))

    # Not all: a plan takes a second to make.
    chosen = WITH_CUDNN and device.type == "cuda" and pick.random() < 0.1

    def run():
        compare(ours, formula(problem), inputs, dtype, device)
        if chosen:
            by_cudnn(lambda: compare(ours, formula(problem), inputs, dtype, device))
    return f"{describe} {layout}{' f32 biases' if wide else ''}", run


def by_cudnn(run):
    """The same with cuDNN forced, unless it refuses; why, and how often, is counted."""
    common.set_attention_backend("cudnn")
    try:
        run()
        outcome = "done"
    except RuntimeError as refused:
        if "attention by cuDNN, which" not in str(refused):
            raise
        outcome = str(refused).splitlines()[0].split("asks for: ", 1)[-1]
    finally:
        common.set_attention_backend("auto")
    CUDNN[outcome] = CUDNN.get(outcome, 0) + 1


def drop(problem, pick, shape, device):
    """Dropout by the pattern of the CPU: equal scores and the unit matrix for values give the weights."""
    b, h, n, m = shape
    problem.dropout, problem.seed = pick.choice((0.1, 0.5, 0.9)), pick.getrandbits(40)
    wide = (m + 7) // 8 * 8
    zeros = [torch.zeros(b, h, size, wide) for size in (n, m)]
    weight = torch.ops.molfuse.attention(*zeros, torch.eye(m, wide).expand(b, h, m, wide), dropout_p=problem.dropout, seed=problem.seed)
    problem.kept = (weight[..., :m] > 0).to(device)


def check_decode(pick, h, d, dtype, device):
    b, capacity, append = pick.choice((1, 2, 7, 40)), pick.choice((1, 5, 64, 130, 700)), pick.random() < 0.7
    lengths = [pick.randint(0, capacity - append) for _ in range(b)]
    radius = pick.choice((-1, -1, 0, 5, 40))
    query, key_new, value_new = (torch.randn(b, h, d, device=device).to(dtype) for _ in range(3))
    caches = [torch.randn(b, h, capacity, d, device=device).to(dtype) for _ in range(2)]
    relative = torch.randn(h, 2 * radius + 1, device=device).to(dtype) if radius >= 0 else None
    if pick.random() < 0.4:
        caches = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in caches]

    def run():
        expected = [x.clone() for x in caches]
        if append:
            for n, length in enumerate(lengths):
                for cache, new in zip(expected, (key_new, value_new)):
                    cache[n, :, length] = new[n]
        got = torch.ops.molfuse.attention_decode(query, *caches, torch.tensor(lengths, device=device),
                                                 *((key_new, value_new) if append else (None, None)), relative)
        for name, cache, wanted in zip(("key_cache", "value_cache"), caches, expected):
            if not torch.equal(cache, wanted):
                raise Wrong(f"{name}: not what is to be appended")
        results = []
        for to in (dtype, torch.float64):
            rows = [scores_softmax_values(Problem(), query[n:n + 1, :, None].to(to),
                                          *(x[n:n + 1, :, :length + append].to(to) for x in expected),
                                          relative=None if relative is None else relative.to(to))[:, :, 0] for n, length in enumerate(lengths)]
            results.append(torch.cat(rows))
        close("result", got, *results, dtype)
    return f"decode B {b} H {h} D {d} lengths {lengths[:6]} of {capacity}{' append' if append else ''} radius {radius}", run


def peers_of(problem, device):
    backends = [peer for name, backend in (("flash", "flash"), ("cuDNN", "cudnn"), ("memory-efficient", "mem_efficient"), ("math", "math"))
                for peer in optional(f"SDPA {name}", "attention_peers", lambda peers, b=backend: peers.sdpa(problem, b), compiled=False)]
    flex = optional("flex_attention, torch.compile", "attention_peers", lambda peers: peers.flex(problem, device), compiled=False)
    flex = [peer._replace(compiled=peer.call is not None) for peer in flex]
    return [*backends, *flex,
            *optional("flash-attn", "attention_peers", lambda peers: peers.flash_attn(problem), compiled=False),
            *optional("xFormers", "attention_peers", lambda peers: peers.xformers(problem), compiled=False)]


def check_peers(generator, device, few):
    for kind in KINDS:
        problem, make, _, _ = problem_of(kind, 3, 2, 9 if few else 70, 16, torch.float32, device)
        inputs, _ = make()
        # Those that take f32, and flex_attention as it is without a compiler.
        peers = [peer._replace(compiled=False) for peer in peers_of(problem, device) if "math" in peer.name or "flex" in peer.name]
        yield f"{kind} {list(inputs[0].shape)}", peers, formula(problem), inputs


def problem_of(kind, b, h, n, d, dtype, device):
    """Problem, make() of its inputs, bytes and operations."""
    problem = Problem(causal=kind.startswith("causal"), bias="bias" in kind, relative="relative" in kind, longest=n)
    counts = torch.full((b,), n)
    if kind == "varlen":
        # As tokens of molecules are: most are much shorter than the longest.
        counts = (n * (0.35 + 0.15 * torch.randn(b))).round().long().clamp(1, n)
        counts[0] = n
        problem.starts = problem.key_starts = torch.tensor([0, *counts.cumsum(0).tolist()], dtype=torch.int32, device=device)
    elif kind.startswith("padding"):
        counts = torch.randint((n + 1) // 2, n + 1, (b,))
        problem.lengths = counts.to(device)
    tokens, keys = int(counts.sum()), int(counts.sum())
    shape = (tokens, h, d) if kind == "varlen" else (b, h, n, d)
    rows = tokens if kind == "varlen" else b * n

    def make():
        inputs = [leaf(*shape, dtype=dtype, device=device) for _ in range(3)]
        if problem.bias:
            inputs.append(leaf(b, h, n, n, dtype=dtype, device=device))
        if problem.relative:
            inputs.append(leaf(h, 2 * RADIUS + 1, dtype=torch.float32, device=device))
        return inputs, torch.randn(*shape, device=device).to(dtype)
    pairs = int((counts * counts).sum()) if kind == "varlen" else keys * n
    if problem.causal:
        pairs = b * n * (n + 1) // 2
    # Query, out, and query, upstream gradient and query's gradient; twice the keys and values that are seen, and their gradients. The bias
    # where it is seen twice, and its gradient.
    moved = h * d * (5 * rows + 4 * keys + 2 * rows)
    if problem.bias:
        moved += h * (2 * pairs + b * n * n)
    # Two products forward, five backward.
    return problem, make, moved * size_of(dtype), 14 * pairs * h * d


def grid(small, quick):
    """(B, H, N, D, kind, type, whether it is small), the most telling first: the end may be left out."""
    if small:
        return [(2, 2, 12, 16, kind, "bf16", True) for kind in KINDS] + [(2, 2, 12, 16, "plain", "f32", True)]

    def point(n, d, kind, name="bf16"):
        heads = max(1, min(WORK // n ** 2, LARGEST // (n * d)))
        h = min(8, heads)
        return heads // h, h, n, d, kind, name, False
    # The fields of a table, and a decoder of molecules, as they are in training.
    users = [(4096, 8, 4, 32, "plain", "bf16", True), (256, 8, 128, 32, "causal relative", "bf16", True)]
    if quick:
        return users + [point(n, 64, kind) for n in (32, 128, 4, 512) for kind in KINDS]
    short, long = [n for n in LENGTHS if n <= 512], [n for n in LENGTHS if n > 512]
    points = [point(n, 64, kind) for n in short for kind in KINDS]
    points += [point(n, d, kind) for d in (128, 64) for n in long for kind in ("plain", "causal")]
    points += [point(n, 64, kind, "f32") for n in (32, 128, 512) for kind in ("plain", "causal relative")]
    points += [point(n, d, kind) for d in (32, 128) for n in short for kind in KINDS]
    points += [point(n, d, kind) for d in (64, 32, 128) for n in long for kind in KINDS]
    return users + list(dict.fromkeys(points))


def cases(device, small, quick):
    for b, h, n, d, kind, name, few in grid(small, quick):
        dtype = TYPES[name]
        # Packed sequences are short: more of them for the same work.
        b = 4 * b if kind == "varlen" and not small else b
        problem, make, moved, operations = problem_of(kind, b, h, n, d, dtype, device)
        yield Case(name=f"B{b} H{h} N{n} D{d} {kind} {name}", dtype=name, small=few, bytes=moved, flops=operations, matrix=True, forward=True,
                   sets=input_sets(make, 4 * b * h * n * d * size_of(dtype), device), ours=operator(problem), peers=peers_of(problem, device), backends=("own", "cudnn") if device.type == "cuda" else ())
