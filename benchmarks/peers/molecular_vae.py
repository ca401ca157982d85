#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times training steps of molfuse's molecular VAE (docs/molecular_vae.md) written in PyTorch and torch_geometric.

A step is a batch's copy to the device, forward, backward, the gradients' norm cut, and fused AdamW. Batches are made, and on CUDA pinned,
beforehand. On CUDA times are those between events at the ends of steps, so that the host may be ahead as in training. Writes one line of
JSON, with --report-loss before it one for each step."""
import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What is installed comes before what lies in peers/site.
sys.path.append(str(ROOT / "benchmarks/peers/site"))

import torch_geometric
from torch_geometric.data import Batch, Data
from torch_geometric.nn import TransformerConv, global_mean_pool

import molrec

PAD = 0
# What ModelConfig.parameterCount gives with 39 tokens. TransformerConv's four projections have biases, and it has no other: as many as the
# one product for query, key, value and skip there.
PARAMETERS = {"small": 8_100_111, "large": 162_009_855}
NODE_FEATURES = 6
# Brings the node features to about one, as molfuse's encoder does.
FEATURE_SCALE = (0.1, 0.25, 1, 0.25, 1, 1)


class Graphs(NamedTuple):
    x: torch.Tensor  # f32 [V,6]
    edge_index: torch.Tensor  # int64 [2,E]
    batch: torch.Tensor  # int64 [V]
    inputs: torch.Tensor  # int64 [B,T]
    targets: torch.Tensor  # int64 [B,T]


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, channels, dropout):
        super().__init__()
        self.conv = TransformerConv(width, channels, heads=heads, dropout=dropout)
        self.norm = nn.BatchNorm1d(heads * channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, edge_index):
        return self.dropout(F.relu(self.norm(self.conv(x, edge_index))))


class Encoder(nn.Module):
    def __init__(self, config, checkpointing):
        super().__init__()
        width = config["heads"] * config["channels"]
        self.register_buffer("feature_scale", torch.tensor(FEATURE_SCALE))
        self.layers = nn.ModuleList(EncoderLayer(width if i else NODE_FEATURES, config["heads"], config["channels"], config["dropout"])
                                    for i in range(config["layers"]))
        self.selected = selected_layers(config["layers"], config["selected"])
        self.checkpointing = checkpointing

    def forward(self, x, edge_index, batch, graphs):
        x = x * self.feature_scale
        pooled = []
        for number, layer in enumerate(self.layers, 1):
            # Running statistics move twice a step then, which training does not read.
            x = checkpoint(layer, x, edge_index, use_reentrant=False) if self.checkpointing else layer(x, edge_index)
            if number in self.selected:
                pooled.append(global_mean_pool(x, batch, graphs))
        return torch.cat(pooled, 1)


def selected_layers(layers, selected):
    if (layers, selected) == (10, 8):
        return [1, 2, 3, 4, 5, 6, 8, 10]
    return [layers if selected == 1 else 1 + math.floor(i * (layers - 1) / (selected - 1) + 0.5) for i in range(selected)]


class LatentHead(nn.Module):
    def __init__(self, config, pooled, hidden):
        super().__init__()
        if config["slots"] != 1:
            raise ValueError("latent.slots must be 1: no preset has more")
        self.slots, self.hidden = config["memory_slots"], hidden
        self.mean = nn.Linear(pooled, config["width"])
        self.log_var = nn.Linear(pooled, config["width"])
        self.dropout = nn.Dropout(config["dropout"])
        self.memory = nn.Linear(config["width"], self.slots * hidden)

    def forward(self, pooled):
        mean, log_var = self.mean(pooled).float(), self.log_var(pooled).float().clamp(-20, 10)
        latent = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean) if self.training else mean
        return mean, log_var, self.memory(self.dropout(latent)).view(-1, self.slots, self.hidden)


def relative_scores(relative, n):
    """[H,N,N] of [H,2R+1] for any N: windows of one line, each row a step further, by a row length that is one too short. An index would
    sort the scores in backward, and unfold is compiled for one N alone."""
    radius = relative.shape[1] // 2
    line = relative[:, torch.arange(1 - n, n, device=relative.device).clamp(-radius, radius) + radius]
    rows = F.pad(line[:, None].expand(-1, n, -1), (0, 1)).flatten(1)[:, :n * (2 * n - 1)]
    return rows.view(-1, n, 2 * n - 1)[:, :, n - 1:]


class DecoderLayer(nn.Module):
    def __init__(self, config, relative):
        super().__init__()
        hidden, self.heads, self.p = config["hidden"], config["heads"], config["dropout"]
        self.self_norm, self.cross_norm, self.feed_norm = (nn.LayerNorm(hidden) for _ in range(3))
        self.self_qkv, self.self_out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.relative_bias = nn.Parameter(torch.zeros(self.heads, 2 * config["relative_distance"] + 1)) if relative else None
        self.cross_query, self.cross_kv = nn.Linear(hidden, hidden), nn.Linear(hidden, 2 * hidden)
        self.cross_out = nn.Linear(hidden, hidden)
        self.feed = nn.Sequential(nn.Linear(hidden, config["feed_forward"]), nn.GELU(), nn.Linear(config["feed_forward"], hidden))
        self.dropout = nn.Dropout(self.p)

    def attend(self, query, key, value, mask=None, causal=False):
        query, key, value = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        out = F.scaled_dot_product_attention(query, key, value, mask, self.p if self.training else 0.0, causal)
        return out.transpose(1, 2).flatten(2)

    def forward(self, x, memory):
        query, key, value = self.self_qkv(self.self_norm(x)).chunk(3, 2)
        mask = None
        if self.relative_bias is not None:
            length = x.shape[1]
            # Both a mask and causality are refused.
            future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            mask = relative_scores(self.relative_bias, length).to(query.dtype).masked_fill(future, -torch.inf)[None]
        x = x + self.dropout(self.self_out(self.attend(query, key, value, mask, mask is None)))
        query, (key, value) = self.cross_query(self.cross_norm(x)), self.cross_kv(memory).chunk(2, 2)
        x = x + self.dropout(self.cross_out(self.attend(query, key, value)))
        return x + self.dropout(self.feed(self.feed_norm(x)))


class Decoder(nn.Module):
    def __init__(self, config, tokens):
        super().__init__()
        hidden = config["hidden"]
        self.token_embedding, self.position_embedding = nn.Embedding(tokens, hidden), nn.Embedding(config["max_length"], hidden)
        self.layers = nn.ModuleList(DecoderLayer(config, i > 0) for i in range(config["layers"]))
        self.norm = nn.LayerNorm(hidden)
        self.vocabulary = nn.Linear(hidden, tokens)
        for embedding in (self.token_embedding, self.position_embedding):
            nn.init.normal_(embedding.weight, std=hidden ** -0.5)

    def forward(self, tokens, memory):
        x = self.token_embedding(tokens) + self.position_embedding.weight[:tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, memory)
        return self.vocabulary(self.norm(x))


class MolecularVae(nn.Module):
    """Gives the loss, its reconstruction and its Kullback-Leibler term, as molfuse's vae_loss defines them."""

    def __init__(self, config, tokens, beta, checkpointing):
        super().__init__()
        encoder, hidden = config["encoder"], config["decoder"]["hidden"]
        self.encoder = Encoder(encoder, checkpointing)
        self.latent = LatentHead(config["latent"], encoder["selected"] * encoder["heads"] * encoder["channels"], hidden)
        self.decoder = Decoder(config["decoder"], tokens)
        self.beta = beta

    def forward(self, graphs):
        pooled = self.encoder(graphs.x, graphs.edge_index, graphs.batch, graphs.inputs.shape[0])
        mean, log_var, memory = self.latent(pooled)
        logits = self.decoder(graphs.inputs, memory)
        recon = F.cross_entropy(logits.float().flatten(0, 1), graphs.targets.flatten(), ignore_index=PAD)
        kl = -0.5 * (1 + log_var - mean ** 2 - log_var.exp()).mean()
        return recon + self.beta * kl, recon, kl


def preset(name):
    """A preset over the defaults: nested maps of numbers and words, which is all of YAML that the files use."""
    tree = {}
    for file in ("defaults", name):
        path = [(-1, tree)]
        for line in (ROOT / f"src/main/resources/io/molfuse/cli/presets/{file}.yaml").read_text().splitlines():
            key, _, value = line.partition(":")
            if not key.strip() or key.lstrip().startswith("#"):
                continue
            depth = len(key) - len(key.lstrip())
            while path[-1][0] >= depth:
                path.pop()
            parent, key = path[-1][1], key.strip()
            if value.strip():
                try:
                    parent[key] = json.loads(value)
                except json.JSONDecodeError:
                    parent[key] = value.strip()
            else:
                path.append((depth, parent.setdefault(key, {})))
    return tree


def batches_of(molecules, size, pin):
    order = torch.randperm(len(molecules), generator=torch.Generator().manual_seed(0)).tolist()
    batches = []
    for first in range(0, len(order) - size + 1, size):
        chosen = [molecules[i] for i in order[first:first + size]]
        graphs = Batch.from_data_list([Data(x=torch.from_numpy(one.features), edge_index=torch.from_numpy(one.edges)) for one in chosen])
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(one.tokens) for one in chosen], batch_first=True, padding_value=PAD)
        made = (graphs.x, graphs.edge_index, graphs.batch, tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        batches.append(Graphs(*(x.pin_memory() if pin else x for x in made)))
    if not batches:
        raise ValueError(f"{len(molecules)} molecules are less than a batch of {size}")
    return batches


def optimizer_of(model, settings):
    """AdamW with the preset's rates for the three parts, and weight decay for matrices alone."""
    groups = []
    for part, factor in settings["rate_factors"].items():
        parameters = list(getattr(model, part).parameters())
        for matrices in (True, False):
            groups.append({"params": [p for p in parameters if (p.dim() > 1) == matrices], "lr": settings["learning_rate"] * factor,
                           "weight_decay": settings["weight_decay"] if matrices else 0})
    return torch.optim.AdamW(groups, fused=True)


def compiled_graphs():
    """Graphs compiled so far, and what broke them."""
    from torch._dynamo.utils import counters
    return {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}


def train(options, model, optimizer, batches, clip_norm, device):
    """Milliseconds of the steps after the warm-up, and the losses of all."""
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")
    parameters = list(model.parameters())
    run = model
    if options.compile:
        # TransformerConv keeps its last weights in an attribute for a moment, which else breaks the graph at each checkpointed layer.
        if hasattr(torch._dynamo.config, "skip_fwd_side_effects_in_bwd_under_checkpoint"):
            torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
        run = torch.compile(model, dynamic=True)
    cuda = device.type == "cuda"
    moments, losses, warm = [], [], {}
    for step in range(options.warmup + options.steps):
        if step == options.warmup:
            warm = compiled_graphs() if options.compile else {}
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
        if step >= options.warmup:
            moments.append(moment(cuda))
        graphs = Graphs(*(x.to(device, non_blocking=True) for x in batches[step % len(batches)]))
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = run(graphs)
        loss[0].backward()
        nn.utils.clip_grad_norm_(parameters, clip_norm, foreach=True)
        optimizer.step()
        losses.append(torch.stack(loss).detach())
    moments.append(moment(cuda))
    if cuda:
        torch.cuda.synchronize()
    times = [a.elapsed_time(b) if cuda else 1e3 * (b - a) for a, b in zip(moments, moments[1:])]
    return times, torch.stack(losses).tolist(), warm


def moment(cuda):
    if not cuda:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def commit():
    described = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return described.stdout.strip() or "unknown"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of `molfuse prepare`")
    parser.add_argument("--preset", choices=PARAMETERS, default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile with dynamic shapes")
    parser.add_argument("--checkpointing", action="store_true", help="compute encoder layers again in backward")
    parser.add_argument("--molecules", type=int, default=2000, help="of the training split that batches are made of (default: 2000)")
    parser.add_argument("--batch", type=int, help="molecules of a batch (default: the preset's)")
    parser.add_argument("--warmup", type=int, default=20, help="steps before the measured ones (default: 20)")
    parser.add_argument("--steps", type=int, default=100, help="measured steps (default: 100)")
    parser.add_argument("--threads", type=int, help="threads of the CPU (default: PyTorch's)")
    parser.add_argument("--report-loss", action="store_true", help="the loss of each step from the first on")
    parser.add_argument("--commit", help="of molfuse (default: git's)")
    options = parser.parse_args()
    if options.steps < 2 or options.warmup < 1:
        parser.error("--steps must be at least 2 and --warmup at least 1")
    return options


def main():
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = preset(options.preset)
    settings, device = config["training"], torch.device(options.device)
    size = options.batch or settings["batch_size"]
    max_length = config["model"]["decoder"]["max_length"]
    molecules, ids = molrec.load(options.data, "train", options.molecules, config["data"]["max_vocabulary"], max_length)
    batches = batches_of(molecules, size, device.type == "cuda")
    model = MolecularVae(config["model"], len(ids), settings["beta"], options.checkpointing).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    # A token more is a row of the embedding, and one of the vocabulary projection with its bias.
    expected = PARAMETERS[options.preset] + (len(ids) - 39) * (2 * config["model"]["decoder"]["hidden"] + 1)
    if parameters != expected:
        raise AssertionError(f"{parameters} parameters, but molfuse's model has {expected}")
    times, losses, warm = train(options, model, optimizer_of(model, settings), batches, settings["clip_norm"], device)

    if options.report_loss:
        for step, (total, recon, kl) in enumerate(losses, 1):
            print(json.dumps({"step": step, "loss": total, "recon": recon, "kl": kl}))
    if not all(math.isfinite(value) for loss in losses for value in loss):
        raise AssertionError("the loss is not finite")
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    # Of the batches measured, whose sizes differ.
    measured = [batches[step % len(batches)] for step in range(options.warmup, options.warmup + options.steps)]
    report = {
        "peer": "torch_geometric", "preset": options.preset, "device": options.device, "precision": options.precision,
        "compile": options.compile, "checkpointing": options.checkpointing, "batch": size,
        "molecules_per_s": 1e3 * size / median, "step_ms": median, "step_ms_quartiles": [low, high], "steps": options.steps,
        "warmup": options.warmup, "molecules": len(molecules), "tokens": len(ids), "parameters": parameters,
        "mean_nodes": statistics.mean(len(one.x) for one in measured),
        "mean_edges": statistics.mean(one.edge_index.shape[1] for one in measured),
        "mean_length": statistics.mean(one.inputs.shape[1] for one in measured),
        "commit": options.commit or commit(), "torch": torch.__version__, "torch_geometric": torch_geometric.__version__,
        "python": platform.python_version(), "cuda": torch.version.cuda, "threads": torch.get_num_threads(),
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "processors": os.cpu_count(), "command": " ".join(sys.argv[1:])}
    if device.type == "cuda":
        report["peak_bytes"] = torch.cuda.max_memory_allocated()
        report["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    if options.compile:
        report["compiled_in_warmup"], report["compiled"] = warm, compiled_graphs()
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
