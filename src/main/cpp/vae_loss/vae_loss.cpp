// SPDX-License-Identifier: Apache-2.0
// C entry points of vae_loss: argument checks and the division of a call into tasks.
#include "molfuse/vae_loss.h"

#include <algorithm>

#include "runtime/parallel.h"
#include "vae_loss/device.h"
#include "vae_loss/loss.h"

namespace molfuse {
namespace {

// Elements of a task: a quarter of a first-level cache's worth of work, but whole tokens.
constexpr int64_t kTaskElements = 16384;

struct Call {
  LossArgs args;
  VaeLossProblem problem;
  int64_t unmasked;
};

/// One thread's time, roughly: an exponential for each logit, and some for the latents.
double pass_nanoseconds(const Call& call, bool logits) {
  const double exponentials = logits ? static_cast<double>(call.unmasked) * static_cast<double>(call.problem.classes) : 0;
  return 0.5 * exponentials + static_cast<double>(element_count(call.args.mean));
}

int64_t stride_of(const molfuse_tensor& tensor, int dimension) { return tensor.size[dimension] == 1 ? 1 : tensor.stride[dimension]; }

Call check_call(const molfuse_vae_loss_args& a, bool on_device) {
  const int32_t dtype = a.logits.dtype;
  if (!is_float(dtype)) invalid("logits: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(dtype));
  check_shape("logits", a.logits, {kAny, kAny, kAny});
  const int token = a.class_second != 0 ? 2 : 1, cls = a.class_second != 0 ? 1 : 2;
  const int64_t batch = a.logits.size[0], length = a.logits.size[token], classes = a.logits.size[cls];
  if (classes < 1) invalid("logits: expected at least one class, got shape %s", shape_text(a.logits).c_str());
  Call call{loss_args(a, dtype, batch, length, classes), {}, 0};
  const CheckedTargets checked = check_loss_inputs(call.args, on_device);
  call.unmasked = checked.unmasked;
  VaeLossProblem& p = call.problem;
  p.dtype = dtype;
  p.batch = batch;
  p.length = length;
  p.classes = classes;
  p.logits = a.logits.data;
  p.logits_batch = a.logits.stride[0];
  p.logits_token = stride_of(a.logits, token);
  p.logits_class = stride_of(a.logits, cls);
  p.targets = checked.targets;
  if (present(a.row_lse)) p.row_lse = token_values(a.row_lse);
  return call;
}

void take_gradient(Call& call, const molfuse_vae_loss_args& a) {
  VaeLossProblem& p = call.problem;
  check_dtype("grad_logits", a.grad_logits, {p.dtype});
  check_shape("grad_logits", a.grad_logits, {a.logits.size[0], a.logits.size[1], a.logits.size[2]});
  check_output("grad_logits", a.grad_logits);
  check_apart({{"grad_logits", a.grad_logits}}, {{"targets", a.targets}});
  const int token = a.class_second != 0 ? 2 : 1, cls = a.class_second != 0 ? 1 : 2;
  p.grad_logits = a.grad_logits.data;
  p.grad_batch = a.grad_logits.stride[0];
  p.grad_token = stride_of(a.grad_logits, token);
  p.grad_class = stride_of(a.grad_logits, cls);
}

/// Division of a [B,T] grid: into ranges of tokens, or where tokens are contiguous and classes are not, into tiles of each sample.
struct Tasks {
  bool tiles;
  int64_t size, count, per_sample;

  explicit Tasks(const VaeLossProblem& p) {
    tiles = p.logits_class != 1 && p.logits_token == 1 && (p.grad_logits == nullptr || p.grad_token == 1) && p.length >= 4;
    if (tiles) {
      per_sample = (p.length + kTileTokens - 1) / kTileTokens;
      count = per_sample * p.batch;
    } else {
      size = std::clamp<int64_t>(kTaskElements / p.classes, 1, kTaskTokens);
      count = (p.batch * p.length + size - 1) / size;
    }
  }
  int64_t tile_begin(const VaeLossProblem& p, int64_t tile) const { return p.length * tile / per_sample; }
};

void run_forward(const molfuse_vae_loss_args& a, const molfuse_execution& caller) {
  Call call = check_call(a, caller.device_type == MOLFUSE_CUDA);
  const molfuse_execution execution = with_worthwhile_threads(caller, pass_nanoseconds(call, true));
  check_forward_outputs(call.args);
  VaeLossProblem& p = call.problem;
  if (present(a.nll)) p.nll = token_values(a.nll);
  if (present(a.grad_logits)) {
    if (a.reduction == MOLFUSE_REDUCTION_NONE) invalid("grad_logits: with reduction none it comes from backward, which knows grad_nll");
    if (a.grad_logits.data == a.logits.data && element_count(a.logits) > 0) invalid("grad_logits: forward reads logits again after writing it; expected memory of its own");
    take_gradient(call, a);
    p.row_scale = forward_token_scale(call.args, call.unmasked);
  }
#if defined(MOLFUSE_WITH_CUDA)
  if (caller.device_type == MOLFUSE_CUDA) {
    DeviceCall device(caller, "molfuse_vae_loss_forward");
    return vae_loss_forward_device(p, call.args, device);
  }
#endif
  Latent latent(call.args, false);
  const Tasks tasks(p);
  std::vector<TokenSums> sums(static_cast<size_t>(tasks.count));
  const VaeLossKernels& kernels = select_vae_loss_kernels();
  const int64_t total = tasks.count + latent.tasks();
  const int threads = thread_count(execution, total);
  parallel_tasks(threads, total, chunk_of(total, threads), [&](int64_t n, int) {
    if (n >= tasks.count) {
      latent.forward(n - tasks.count);
    } else if (tasks.tiles) {
      const int64_t tile = n % tasks.per_sample;
      kernels.forward_tile(p, n / tasks.per_sample, tasks.tile_begin(p, tile), tasks.tile_begin(p, tile + 1), &sums[static_cast<size_t>(n)]);
    } else {
      kernels.forward_rows(p, n * tasks.size, std::min(p.batch * p.length, (n + 1) * tasks.size), &sums[static_cast<size_t>(n)]);
    }
  });
  write_statistics(call.args, sums, call.unmasked, latent);
}

void run_backward(const molfuse_vae_loss_args& a, const molfuse_execution& caller) {
  Call call = check_call(a, caller.device_type == MOLFUSE_CUDA);
  const bool want_logits = present(a.grad_logits);
  const molfuse_execution execution = with_worthwhile_threads(caller, pass_nanoseconds(call, want_logits));
  check_backward(call.args, want_logits);
  VaeLossProblem& p = call.problem;
  if (want_logits) {
    take_gradient(call, a);
    for (int d = 0; a.grad_logits.data == a.logits.data && d < 3; ++d) {
      if (a.logits.size[d] > 1 && a.logits.stride[d] != a.grad_logits.stride[d]) {
        invalid("grad_logits: expected the strides of logits, whose memory it shares, got %lld instead of %lld in dimension %d",
                static_cast<long long>(a.grad_logits.stride[d]), static_cast<long long>(a.logits.stride[d]), d);
      }
    }
    if (present(a.grad_nll)) {
      p.grad_nll = token_values(a.grad_nll);
    } else if (caller.device_type == MOLFUSE_CPU) {
      p.row_scale = token_scale(call.args);
    }
  }
#if defined(MOLFUSE_WITH_CUDA)
  if (caller.device_type == MOLFUSE_CUDA) {
    DeviceCall device(caller, "molfuse_vae_loss_backward");
    return vae_loss_backward_device(p, call.args, device);
  }
#endif
  const Latent latent(call.args, true);
  const Tasks tasks(p);
  const VaeLossKernels& kernels = select_vae_loss_kernels();
  const size_t element = p.dtype == MOLFUSE_F64 ? 8 : 4;
  const size_t scratch_bytes = tasks.tiles ? static_cast<size_t>(std::min(p.classes, kKeptClasses) * (kTileTokens + 16)) * element : 0;
  const int64_t token_tasks = want_logits ? tasks.count : 0, total = token_tasks + latent.tasks();
  const int threads = thread_count(execution, total);
  const Scratch scratch(scratch_bytes * static_cast<size_t>(threads));
  parallel_tasks(threads, total, chunk_of(total, threads), [&](int64_t n, int thread) {
    if (n >= token_tasks) {
      latent.backward(n - token_tasks);
    } else if (tasks.tiles) {
      const int64_t tile = n % tasks.per_sample;
      kernels.backward_tile(p, n / tasks.per_sample, tasks.tile_begin(p, tile), tasks.tile_begin(p, tile + 1),
                            scratch.at<char>(scratch_bytes * static_cast<size_t>(thread)));
    } else {
      kernels.backward_rows(p, n * tasks.size, std::min(p.batch * p.length, (n + 1) * tasks.size));
    }
  });
}

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" {

molfuse_status molfuse_vae_loss_forward(const molfuse_vae_loss_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_vae_loss_forward");
    run_forward(read_args(args, "molfuse_vae_loss_forward"), where);
  });
}

molfuse_status molfuse_vae_loss_backward(const molfuse_vae_loss_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_vae_loss_backward");
    run_backward(read_args(args, "molfuse_vae_loss_backward"), where);
  });
}

}  // extern "C"
