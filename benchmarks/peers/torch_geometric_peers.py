# SPDX-License-Identifier: Apache-2.0
"""torch_geometric on the operators' inputs: TransformerConv's message passing without its projections, and global_mean_pool."""
import torch
from torch_geometric.nn import TransformerConv, global_mean_pool


class _MessagePassing(TransformerConv):
    def __init__(self, heads, channels):
        # One input channel: the projections are made but never called.
        super().__init__(1, channels, heads=heads, root_weight=False, bias=False)

    def forward(self, query, key, value, edge_index):
        # propagate_type: (query: Tensor, key: Tensor, value: Tensor, edge_attr: OptTensor)
        out = self.propagate(edge_index, query=query, key=key, value=value, edge_attr=None)
        self._alpha = None
        return out


def graph_attention(graph, heads, channels):
    layer = _MessagePassing(heads, channels).eval()
    # In order of target, which suits its gathers and scatters.
    edge_index = torch.stack([graph.source, graph.target])
    return lambda query, key, value: layer(query, key, value, edge_index)


def latent_concat(batch, graphs):
    return lambda *layers: torch.cat([global_mean_pool(layer, batch, graphs) for layer in layers], 1)
