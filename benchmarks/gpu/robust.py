# SPDX-License-Identifier: Apache-2.0
"""What operators on a GPU must bear besides right inputs: capture into a CUDA graph, no memory left, tensors on different devices, a device
that another's kernel has broken."""
import subprocess
import sys

import torch


class Problem:
    def __init__(self, name, inputs, call):
        self.name, self.inputs, self.call = name, inputs, call

    def run(self, inputs, upstream=None):
        out = self.call(*inputs)
        if upstream is None:
            return [out]
        return [out, *torch.autograd.grad(out, inputs, upstream)]


def problems(families, device, dtype=torch.float32):
    """One of each operator, differentiable in all of its inputs. New inputs of the same shapes are drawn for each replay."""
    generator = torch.Generator().manual_seed(7)
    nodes = 60
    source, target = torch.randint(0, nodes, (2, 3000), generator=generator)
    target[:2000] = 7  # a hub
    graph = [part.to(device) for part in torch.ops.molfuse.graph_from_edges(source, target, nodes)[:5]]
    targets = torch.randint(1, 40, (4, 30), generator=generator).to(device)
    graph_ptr = torch.tensor([0, 700, 701, 760], device=device)

    def normals(*shapes):
        return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    rows, latent = (nodes, 4, 32), (4, 16)
    # Short ones, that fit on the chip, and long ones.
    short, long, square = (3, 4, 40, 32), (1, 2, 700, 64), (3, 4, 40, 40)
    lengths = torch.tensor([40, 0, 17], device=device)
    starts = torch.tensor([0, 7, 7, 50, 60], dtype=torch.int32, device=device)
    made = {
        "graph_attention": [
            Problem("graph_attention", normals(rows, rows, rows),
                    lambda q, k, v: torch.ops.molfuse.graph_attention(q, k, v, *graph)),
            Problem("graph_attention with dropout", normals(rows, rows, rows),
                    lambda q, k, v: torch.ops.molfuse.graph_attention(q, k, v, *graph, dropout_p=0.2, seed=3))],
        "vae_loss": [
            Problem(f"vae_loss {reduction}{' in place' if in_place else ''}", normals((4, 30, 40), latent, latent),
                    lambda x, m, v, reduction=reduction, in_place=in_place: torch.ops.molfuse.vae_loss(
                        x * 1.0, targets, m, v, 0.5, 0, reduction, False, in_place)[0])
            for reduction in ("mean", "sum") for in_place in (False, True)],
        "encoder_epilogue": [
            Problem("encoder_epilogue", normals((760, 64), (760, 64), (64,), (64,)),
                    lambda x, r, w, b: torch.ops.molfuse.encoder_epilogue(x, r, w, b, None, None, True, dropout_p=0.2, seed=4)),
            Problem("encoder_epilogue_into", normals((760, 64), (760, 64), (64,), (64,)),
                    lambda x, r, w, b: torch.ops.molfuse.encoder_epilogue_into(
                        torch.empty(3, 64, device=x.device, dtype=x.dtype), 0, graph_ptr, x, r, w, b, None, None, True)[1])],
        "latent_concat": [
            Problem("latent_concat", normals((760, 64), (760, 7)), lambda a, b: torch.ops.molfuse.latent_concat([a, b], graph_ptr))],
        "attention": [
            Problem(f"attention of {shape[2]}", normals(shape, shape, shape), torch.ops.molfuse.attention) for shape in (short, long)] + [
            Problem("attention with biases and dropout", normals(short, short, short, square, (4, 9)),
                    lambda q, k, v, b, r: torch.ops.molfuse.attention(q, k, v, b, r, lengths, dropout_p=0.2, seed=3)),
            Problem("attention with a bias of all sequences", normals(long, long, long, (1, 1, 700, 700), (2, 65)),
                    lambda q, k, v, b, r: torch.ops.molfuse.attention(q, k, v, b, r, causal=True)),
            Problem("attention_varlen", normals(rows, rows, rows, (4, 9)),
                    lambda q, k, v, r: torch.ops.molfuse.attention_varlen(q, k, v, starts, starts, 43, 43, r, True))],
        "linear_vae_loss": [
            Problem(f"linear_vae_loss {reduction}", normals((4, 30, 64), (40, 64), (40,), latent, latent),
                    lambda x, w, b, m, v, reduction=reduction: torch.ops.molfuse.linear_vae_loss(
                        x, w, b, targets, m, v, 0.5, 0, reduction)[0])
            for reduction in ("mean", "sum")],
        "reparameterize": [
            Problem("reparameterize", normals(latent, latent), lambda m, v: torch.ops.molfuse.reparameterize(m, v, 5))],
    }
    return [problem for family in families for problem in made.get(family, [])]


def captured_forward(problem):
    """Without a warm-up: also what a first call does must be allowed during a capture."""
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        results = problem.run(problem.inputs)
    return compare_replays(problem, graph, problem.inputs, None, results)


def captured_training(problem):
    static = [x.clone().requires_grad_() for x in problem.inputs]
    upstream = torch.randn_like(problem.call(*static).detach())
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            problem.run(static, upstream)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = problem.run(static, upstream)
    return compare_replays(problem, graph, static, upstream, results)


def compare_replays(problem, graph, static, upstream, results):
    """Replays with new inputs in the captured ones' memory. Operators are deterministic: results are those of eager calls, bit for bit."""
    for _ in range(3):
        with torch.no_grad():
            for x in [*static, *([] if upstream is None else [upstream])]:
                x.copy_(torch.randn_like(x))
        graph.replay()
        got = [result.detach().clone() for result in results]
        fresh = [x.detach().clone().requires_grad_(upstream is not None) for x in static]
        for n, (a, b) in enumerate(zip(got, problem.run(fresh, upstream))):
            if not torch.equal(a, b):
                wrong = (a.double() - b.detach().double()).abs().max()
                return f"result {n} of a replay differs from an eager call's by {float(wrong):.3g}"
    return None


def out_of_memory(problem):
    """Takes all memory in small pieces and gives it back bit by bit until a call succeeds: on the way, each allocation fails once."""
    leaves = [x.clone().requires_grad_() for x in problem.inputs]
    upstream = torch.randn_like(problem.call(*leaves).detach())
    expected = problem.run(leaves, upstream)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    hoard, failures = [], 0
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 20)) / total)
        while True:
            try:
                hoard.append(torch.empty(512, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                break
        while True:
            try:
                results = problem.run(leaves, upstream)
                break
            except torch.OutOfMemoryError:
                failures += 1
                if not hoard:
                    return "torch.OutOfMemoryError though memory was given back"
                del hoard[-16:]
    finally:
        hoard.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)
    if failures == 0:
        return "no memory was left, and no torch.OutOfMemoryError came"
    for n, (a, b) in enumerate(zip(results, expected)):
        if not torch.equal(a, b):
            return f"result {n} of the call after {failures} without memory is another"
    return None


def other_device(problem):
    elsewhere = "cpu" if problem.inputs[0].is_cuda else "meta"
    for n in range(len(problem.inputs)):
        inputs = list(problem.inputs)
        inputs[n] = inputs[n].to(elsewhere)
        try:
            problem.call(*inputs)
            return f"input {n} on device {elsewhere} was accepted"
        except (ValueError, RuntimeError) as refused:
            if "device" not in str(refused):
                return f"input {n} on device {elsewhere}: the message does not name it: {str(refused).splitlines()[0]}"
    return None


FAULT = """
import sys, torch
torch.ops.load_library(sys.argv[1])
x = torch.ones(8, 8, device="cuda")
torch.ops.molfuse.reparameterize(x, x, 1)
try:
    x[torch.full((1,), 1 << 40, device="cuda")].sum().item()
except RuntimeError:
    pass
try:
    torch.ops.molfuse.reparameterize(x, x, 1)
except RuntimeError as failure:
    print(failure)
"""


def after_a_fault():
    """A process whose device an earlier kernel, not one of molfuse, has broken."""
    library = next(path for path in torch.ops.loaded_libraries if "molfuse_torch" in path)
    run = subprocess.run([sys.executable, "-c", FAULT, library], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    wanted = ("molfuse_reparameterize_forward", "device 0", "may be the fault of any earlier one", "must be started anew")
    return None if all(part in run.stdout for part in wanted) else f"expected {', '.join(wanted)}, got: {run.stdout.strip() or 'nothing'}"


def check(families, device):
    """Failures, as text."""
    cuda = device.type == "cuda"
    if not cuda:
        print("CUDA graphs, memory that runs out and faults of the device: not checked without a GPU")
    failures = []
    checks = [captured_forward, captured_training, out_of_memory, other_device] if cuda else [other_device]
    tasks = [(f"{problem.name}, {run.__name__}", run, [problem]) for run in checks for problem in problems(families, device)]
    for name, run, arguments in tasks + ([("after_a_fault", after_a_fault, [])] if cuda else []):
        try:
            wrong = run(*arguments)
        except (RuntimeError, ValueError) as failure:
            wrong = str(failure).splitlines()[0]
        if wrong is not None:
            failures.append(f"{name}: {wrong}")
    print(f"robust: {len(tasks)} checks, {len(failures)} failures", flush=True)
    return failures
