# SPDX-License-Identifier: Apache-2.0
import torch

from cases import TYPES, Case, eager_and_compiled, input_sets, leaf, size_of
from exact import compare


def away_from_zero(inputs, dtype):
    """Moves x where the normalised value is next to nothing: there, rounding decides what ReLU's gradient is."""
    for _ in range(20):
        x, residual, weight, bias = (t.to(dtype).double() for t in inputs)
        sums = (x + residual).to(dtype).double()
        y = torch.nn.functional.batch_norm(sums, None, None, weight, bias, True)
        near = y.abs() < 1e-4
        if not near.any():
            return
        inputs[0] += near * 0.0625


def formula(x, residual, weight, bias, batch, graphs, counts):
    """The features and their means over each graph, as one tensor. Without dropout, whose random numbers are the operator's own."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    features = torch.relu(torch.nn.functional.batch_norm(x + residual, None, None, weight.to(wide), bias.to(wide), True))
    sums = torch.zeros(graphs, x.shape[1], dtype=x.dtype, device=x.device).index_add(0, batch, features)
    return torch.cat([features, (sums / counts).to(x.dtype)])


def check(pick, generator, dtype, device):
    counts = [pick.choice((0, 1, 2, 25, 60, 900)) for _ in range(pick.choice((1, 2, 5, 40)))] + [30]
    width = pick.choice((1, 7, 8, 32, 100, 256, 2048))
    nodes, graphs = sum(counts), len(counts)
    while nodes * width > (1 << 17 if device.type == "cpu" else 1 << 22):
        width = max(1, width // 4)
    describe = f"graphs {counts[:6]} width {width}"
    graph_ptr = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()], device=device, dtype=pick.choice((torch.int32, torch.int64)))
    batch = torch.repeat_interleave(torch.arange(graphs), torch.tensor(counts)).to(device)
    column = torch.tensor(counts, device=device).clamp(min=1)[:, None]
    inputs = [torch.randn(nodes, width, device=device), torch.randn(nodes, width, device=device), torch.randn(width, device=device),
              torch.randn(width, device=device)]
    away_from_zero(inputs, dtype)

    def ours(x, residual, weight, bias):
        pooled = torch.empty(graphs, width, dtype=x.dtype, device=device)
        return torch.cat(torch.ops.molfuse.encoder_epilogue_into(pooled, 0, graph_ptr, x, residual, weight, bias, None, None, True))
    return describe, lambda: compare(ours, lambda *inputs: formula(*inputs, batch, graphs, column), inputs, dtype, device)


def cases(device, small, quick):
    for name, dtype in TYPES.items():
        for graphs in (2,) if small else (64, 640, 4000):
            yield case(name, dtype, graphs, 25, 32 if small else 2048, device)


def case(name, dtype, graphs, nodes_each, width, device):
    """In training, with dropout; the gradient comes through the features, as in all but an encoder's last layer."""
    nodes = graphs * nodes_each
    graph_ptr = torch.arange(0, nodes + 1, nodes_each, device=device, dtype=torch.int32)
    batch = torch.arange(graphs, device=device).repeat_interleave(nodes_each)
    running = [torch.zeros(width, device=device), torch.ones(width, device=device)]
    pooled = torch.empty(graphs, width, dtype=dtype, device=device)
    size = nodes * width * size_of(dtype)

    def make():
        inputs = [leaf(nodes, width, dtype=dtype, device=device) for _ in range(2)]
        inputs += [leaf(width, dtype=torch.float32, device=device) for _ in range(2)]
        return inputs, torch.randn(nodes, width, device=device).to(dtype)

    def ours(x, residual, weight, bias):
        return torch.ops.molfuse.encoder_epilogue_into(pooled.detach(), 0, graph_ptr, x, residual, weight, bias, *running, True,
                                                       dropout_p=0.1, seed=3)[0]

    def eager(x, residual, weight, bias):
        features = torch.relu(torch.nn.functional.batch_norm(x + residual, *running, weight, bias, True))
        features = torch.nn.functional.dropout(features, 0.1)
        pooled.copy_(torch.zeros_like(pooled).index_add(0, batch, features.detach()) / nodes_each)
        return features
    # Forward reads both inputs, writes their sum, reads it again and writes the result; backward reads the sum and the upstream gradient
    # twice and writes one gradient, which is that of both inputs.
    return Case(name=f"[{nodes},{width}] {name}", dtype=name, small=graphs <= 64, bytes=10 * size, same_result=False,
                sets=input_sets(make, 5 * size, device), ours=ours, peers=eager_and_compiled("eager", eager))
