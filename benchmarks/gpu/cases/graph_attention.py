# SPDX-License-Identifier: Apache-2.0
import torch

from cases import TYPES, Case, eager_and_compiled, input_sets, leaf, optional, size_of
from exact import compare, strided


class Graph:
    """A batch of graphs over nodes 0..nodes-1, as CSR by target and its transpose; built on the CPU, kept on the device."""

    def __init__(self, source, target, nodes, device, index):
        parts = torch.ops.molfuse.graph_from_edges(source.to(index), target.to(index), nodes)
        self.row_ptr, self.by_target, self.row_ptr_t, self.target_t, self.edge_id = (part.to(device) for part in parts[:5])
        order = parts[5]
        # The edges in the by-target order, for the formulas.
        self.source, self.target = (part[order.long()].to(device, torch.int64) for part in (source, target))
        self.nodes = nodes

    def arguments(self):
        return self.row_ptr, self.by_target, self.row_ptr_t, self.target_t, self.edge_id


def molecules(nodes, generator, device, index=torch.int32):
    """Chains with a ring bond here and there, both directions of each bond, 25 atoms a molecule: about 2.1 edges a node."""
    source, target = [], []
    for first in range(0, nodes, 25):
        last = min(nodes, first + 25)
        bonds = [(atom, atom + 1) for atom in range(first, last - 1)]
        for _ in range(2):
            a, b = (int(x) for x in torch.randint(first, last, (2,), generator=generator))
            if a != b:
                bonds.append((a, b))
        for a, b in bonds:
            source += [a, b]
            target += [b, a]
    return Graph(torch.tensor(source, dtype=torch.int64), torch.tensor(target, dtype=torch.int64), nodes, device, index)


def skewed(nodes, hub_edges, generator, device, index=torch.int32):
    """Random edges, and one node with very many."""
    source = torch.randint(0, nodes, (2 * nodes + hub_edges,), generator=generator)
    target = torch.randint(0, nodes, (2 * nodes + hub_edges,), generator=generator)
    target[:hub_edges] = nodes // 2
    return Graph(source, target, nodes, device, index)


def message_passing(query, key, value, source, target, nodes):
    """The formula, as message passing does it: gathers, a softmax over each target's edges, a scatter."""
    score = (query[target] * key[source]).sum(-1) / query.shape[-1] ** 0.5
    index = target[:, None].expand_as(score)
    largest = torch.full((nodes, score.shape[1]), -torch.inf, dtype=score.dtype, device=score.device)
    largest = largest.scatter_reduce(0, index, score.detach(), "amax")
    weight = (score - largest[target]).exp()
    total = torch.zeros_like(largest).index_add(0, target, weight)
    message = value[source] * (weight / total[target])[..., None]
    return torch.zeros_like(value).index_add(0, target, message)


def formula(graph):
    return lambda query, key, value: message_passing(query, key, value, graph.source, graph.target, graph.nodes)


def triton(graph, tile=None):
    """tile: number of a tile, instead of the best."""
    def make(peers):
        chosen = peers.TILES[tile or 0] if peers.INTERPRETED or tile is not None else None
        return lambda query, key, value: peers.graph_attention(query, key, value, *graph.arguments(), tile=chosen)
    return optional("Triton" if tile is None else f"Triton, tile {tile}", "triton_graph_attention", make, compiled=False)


def check(pick, generator, dtype, device):
    nodes, heads = pick.choice((1, 2, 24, 25, 60, 200)), pick.choice((1, 2, 3, 8))
    channels = pick.choice((1, 4, 7, 8, 16, 24, 32, 33, 64, 100, 128, 256, 512))
    index = pick.choice((torch.int32, torch.int64))
    graph = (skewed(nodes, pick.choice((10, 3000)), generator, device, index) if nodes > 1 and pick.random() < 0.3
             else molecules(nodes, generator, device, index))
    inputs = [torch.randn(nodes, heads, channels, device=device) for _ in range(3)]
    gaps = pick.random() < 0.3 and channels <= 250
    describe = f"V {nodes} H {heads} C {channels} E {len(graph.source)}{' strided' if gaps else ''}"

    def ours(query, key, value):
        if gaps:
            query, key = strided(query), strided(key)
        return torch.ops.molfuse.graph_attention(query, key, value, *graph.arguments())
    return describe, lambda: compare(ours, formula(graph), inputs, dtype, device)


def check_peers(generator, device, few):
    """Problems with their peers: every tile of the Triton kernels, the benchmark's and odd sizes, nodes without edges, a hub."""
    nodes, hub_edges = (5, 9) if few else (300, 3000)
    for n, (heads, channels) in enumerate(((8, 8), (8, 32), (8, 256), (3, 33), (1, 7))):
        heads = min(heads, 2) if few else heads
        graph = skewed(nodes, hub_edges, generator, device) if n % 2 == 0 else molecules(nodes, generator, device)
        inputs = [torch.randn(graph.nodes, heads, channels, device=device) for _ in range(3)]
        peers = optional("torch_geometric", "torch_geometric_peers", lambda peers: peers.graph_attention(graph, heads, channels),
                         compiled=False)
        for tile in (n, n + 5)[: 2 if n < 3 else 1]:
            peers += triton(graph, tile)
        yield f"V {graph.nodes} H {heads} C {channels} E {len(graph.source)}", peers, formula(graph), inputs


def cases(device, small, quick):
    generator = torch.Generator().manual_seed(1)
    grid = [(4, 8, 32, "molecules")] if small else [(v, 8, c, "molecules") for v in (1600, 16000, 100000) for c in (32, 256)]
    if not small:
        grid.insert(3, (16000, 8, 32, "one hub of 10000"))
    graphs = {(nodes, kind): molecules(nodes, generator, device) if kind == "molecules" else skewed(nodes, 10000, generator, device)
              for nodes, _, _, kind in grid}
    for name, dtype in TYPES.items():
        for nodes, heads, channels, kind in grid:
            yield case(name, dtype, graphs[nodes, kind], heads, channels, kind, device, nodes <= 1600)


def case(name, dtype, graph, heads, channels, kind, device, small):
    shape = (graph.nodes, heads, channels)
    size = graph.nodes * heads * channels * size_of(dtype)
    edges = len(graph.source)

    def make():
        return [leaf(*shape, dtype=dtype, device=device) for _ in range(3)], torch.randn(*shape, device=device).to(dtype)
    peers = [
        *eager_and_compiled("eager", formula(graph)),
        *optional("torch_geometric TransformerConv", "torch_geometric_peers", lambda peers: peers.graph_attention(graph, heads, channels)),
        *triton(graph)]
    return Case(
        name=f"V{graph.nodes} E{edges} H{heads} C{channels} {kind} {name}", dtype=name, small=small,
        # q, k, v and out; backward these without out, the upstream gradient, and three gradients.
        bytes=11 * size,
        # Two products forward; backward those of the scores again, of the weights' gradients, and of three gradients.
        flops=14 * edges * heads * channels,
        sets=input_sets(make, 4 * size, device),
        ours=lambda q, k, v: torch.ops.molfuse.graph_attention(q, k, v, *graph.arguments()), peers=peers)
