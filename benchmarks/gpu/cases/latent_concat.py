# SPDX-License-Identifier: Apache-2.0
import torch

from cases import TYPES, Case, eager_and_compiled, input_sets, leaf, optional, size_of
from exact import compare


def pool_and_cat(layers, batch, graphs, counts):
    """The formula: the mean over each graph of every layer, side by side; counts of nodes as a column."""
    pooled = [torch.zeros(graphs, layer.shape[1], dtype=layer.dtype, device=layer.device).index_add(0, batch, layer) / counts
              for layer in layers]
    return torch.cat(pooled, 1)


def check(pick, generator, dtype, device):
    counts = [pick.choice((0, 1, 2, 25, 60, 900)) for _ in range(pick.choice((1, 2, 5, 40)))]
    widths = [pick.choice((1, 7, 8, 32, 100, 256, 2048)) for _ in range(pick.choice((1, 2, 8)))]
    describe = f"graphs {counts[:6]} widths {widths}"
    nodes = sum(counts)
    graph_ptr = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()], device=device, dtype=pick.choice((torch.int32, torch.int64)))
    batch = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
    column = torch.tensor(counts, device=device).clamp(min=1)[:, None]
    inputs = [torch.randn(nodes, width, device=device) for width in widths]
    return describe, lambda: compare(lambda *layers: torch.ops.molfuse.latent_concat(list(layers), graph_ptr),
                                     lambda *layers: pool_and_cat(layers, batch, len(counts), column), inputs, dtype, device)


def check_peers(generator, device, few):
    counts = torch.tensor([3, 0, 25, 1, 60])
    batch, column = torch.repeat_interleave(torch.arange(5), counts).to(device), counts.clamp(min=1)[:, None].to(device)
    inputs = [torch.randn(int(counts.sum()), width, device=device) for width in (8, 33)]
    peers = optional("torch_geometric", "torch_geometric_peers", lambda peers: peers.latent_concat(batch, 5), compiled=False)
    yield f"graphs {counts.tolist()}", peers, lambda *layers: pool_and_cat(layers, batch, 5, column), inputs


def cases(device, small, quick):
    for name, dtype in TYPES.items():
        for graphs in (2,) if small else (64, 640, 4000):
            yield case(name, dtype, graphs, 25, 32 if small else 2048, 8, device)


def case(name, dtype, graphs, nodes_each, width, count, device):
    nodes = graphs * nodes_each
    graph_ptr = torch.arange(0, nodes + 1, nodes_each, device=device, dtype=torch.int32)
    batch = torch.arange(graphs, device=device).repeat_interleave(nodes_each)
    counts = torch.full((graphs, 1), nodes_each, device=device)
    size = count * nodes * width * size_of(dtype)

    def make():
        layers = [leaf(nodes, width, dtype=dtype, device=device) for _ in range(count)]
        return layers, torch.randn(graphs, count * width, device=device).to(dtype)

    def eager(*layers):
        return pool_and_cat(layers, batch, graphs, counts).to(layers[0].dtype)

    def stacked(*layers):
        # All graphs of one size: what a view and a mean can do, which is no general pooling.
        return torch.stack([layer.view(graphs, nodes_each, -1).mean(1) for layer in layers], 1).flatten(1)
    peers = [*eager_and_compiled("eager", eager), *eager_and_compiled("stack and view", stacked),
             *optional("torch_geometric global_mean_pool", "torch_geometric_peers", lambda peers: peers.latent_concat(batch, graphs))]
    return Case(name=f"{count} x [{nodes},{width}] {name}", dtype=name, small=graphs <= 64, bytes=2 * size,
                sets=input_sets(make, 2 * size, device),
                ours=lambda *layers: torch.ops.molfuse.latent_concat(list(layers), graph_ptr), peers=peers)
