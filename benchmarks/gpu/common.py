# SPDX-License-Identifier: Apache-2.0
"""What check.py and bench.py share: the library, the device, graphs, and the formulas in PyTorch's own operators."""
import os
import pathlib

import torch

FAMILIES = ("graph_attention", "vae_loss", "latent_concat", "reparameterize")


def add_options(parser):
    parser.add_argument("--only", choices=FAMILIES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--output", type=pathlib.Path, required=True)


def families(options):
    return [options.only] if options.only else list(FAMILIES)


def load():
    torch.ops.load_library(str(pathlib.Path(os.environ["MOLFUSE_LIBRARIES"]) / "libmolfuse_torch.so"))


class Graph:
    """A batch of graphs over nodes 0..nodes-1, as CSR by target and its transpose; built on the CPU, kept on the device."""

    def __init__(self, source, target, nodes, device):
        parts = torch.ops.molfuse.graph_from_edges(source, target, nodes)
        self.row_ptr, self.by_target, self.row_ptr_t, self.target_t, self.edge_id = (part.to(device) for part in parts[:5])
        order = parts[5]
        # The edges in the by-target order, for the formulas.
        self.source, self.target = source[order].to(device), target[order].to(device)
        self.nodes = nodes

    def arguments(self):
        return self.row_ptr, self.by_target, self.row_ptr_t, self.target_t, self.edge_id


def molecules(nodes, generator, device):
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
    return Graph(torch.tensor(source, dtype=torch.int64), torch.tensor(target, dtype=torch.int64), nodes, device)


def skewed(nodes, hub_edges, generator, device):
    """Random edges, and one node with very many."""
    source = torch.randint(0, nodes, (2 * nodes + hub_edges,), generator=generator)
    target = torch.randint(0, nodes, (2 * nodes + hub_edges,), generator=generator)
    target[:hub_edges] = nodes // 2
    return Graph(source, target, nodes, device)


# ---- formulas, in the type of their inputs

def graph_attention(query, key, value, source, target, nodes):
    """As message passing does it: gathers, a softmax over each target's edges, a scatter."""
    score = (query[target] * key[source]).sum(-1) / query.shape[-1] ** 0.5
    index = target[:, None].expand_as(score)
    largest = torch.full((nodes, score.shape[1]), -torch.inf, dtype=score.dtype, device=score.device)
    largest = largest.scatter_reduce(0, index, score.detach(), "amax")
    weight = (score - largest[target]).exp()
    total = torch.zeros_like(largest).index_add(0, target, weight)
    message = value[source] * (weight / total[target])[..., None]
    return torch.zeros_like(value).index_add(0, target, message)


def vae_loss(logits, targets, mean, log_var, beta, pad):
    """logits [B,T,K]"""
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad, reduction="sum")
    recon = nll / ((targets != pad).sum() + 1e-8)
    lv = log_var.clamp(-20, 10)
    kl = -0.5 * (1 + lv - mean.square() - lv.exp()).mean()
    return recon + beta * kl


def latent_concat(layers, batch, graphs, counts):
    """The mean over each graph of every layer, side by side; counts of nodes as a column."""
    pooled = [torch.zeros(graphs, layer.shape[1], dtype=layer.dtype, device=layer.device).index_add(0, batch, layer) / counts
              for layer in layers]
    return torch.cat(pooled, 1)
