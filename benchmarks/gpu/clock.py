# SPDX-License-Identifier: Apache-2.0
"""How a call is timed: as called, as a CUDA graph, and by its kernels alone."""
import statistics
import time

import torch


class Clock:
    def __init__(self, device, quick):
        self.device = device
        self.seconds = 0.05 if quick else 0.2
        # On the CPU nothing is measured: Triton's interpreter takes seconds.
        self.warm, self.least = (6, 10) if device.type == "cuda" else (1, 2)

    def median(self, runs):
        """Median milliseconds of calling runs[0], runs[1], ... in turn."""
        for n in range(self.warm):
            runs[n % len(runs)]()
        times, spent, n = [], 0.0, 0
        while spent < self.seconds or n < self.least:
            run = runs[n % len(runs)]
            if self.device.type == "cuda":
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                run()
                end.record()
                end.synchronize()
                milliseconds = begin.elapsed_time(end)
            else:
                started = time.perf_counter()
                run()
                milliseconds = 1e3 * (time.perf_counter() - started)
            times.append(milliseconds)
            spent += milliseconds / 1e3
            n += 1
        return statistics.median(times)

    def graph_median(self, runs):
        """The same, with each run captured; all replayed one after the other between two events, so that no launch is waited for."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for run in runs[:1] * 3:
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graphs, pool = [], torch.cuda.graph_pool_handle()
        # A capture that fails leaves its stream current: the outer context does not. Results of successive graphs may share memory, as
        # nothing reads them.
        with torch.cuda.stream(torch.cuda.current_stream()):
            for run in runs:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    run()
                graphs.append(graph)

        def replay():
            for graph in graphs:
                graph.replay()
        return self.median([replay]) / len(graphs)

    def kernels(self, runs):
        """Milliseconds a run spends in kernels, copies and fills, and their number."""
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for run in runs:
                run()
            torch.cuda.synchronize()
        events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        return 1e-3 * sum(event.time_range.elapsed_us() for event in events) / len(runs), len(events) / len(runs)
