// SPDX-License-Identifier: Apache-2.0
// C entry points of linear_vae_loss: argument checks, the division of a call into tasks, and the sum of their weight gradients.
#include <algorithm>
#include <cstring>

#include "molfuse/vae_loss.h"
#include "runtime/dtype.h"
#include "runtime/parallel.h"
#include "vae_loss/linear_device.h"

namespace molfuse {
namespace {

constexpr size_t kTileBytes = size_t{2} << 20;  ///< of logits: up to here all classes are one tile, and nothing is computed twice
constexpr int64_t kTileClasses = 256;           ///< classes of a tile otherwise
constexpr size_t kBlockBytes = size_t{160} << 10;  ///< of a block of hidden rows, of which scratch holds three copies
constexpr int64_t kPartialBytes = int64_t{64} << 20;  ///< of all partial sums of the weight gradient
constexpr int64_t kKeptPartialBytes = int64_t{10} << 20;  ///< the same, if that leaves some parallelism: Scratch keeps memory of this size
constexpr int64_t kMaxParts = 64;

struct Call {
  LossArgs args;
  LinearLossProblem problem;
  std::vector<int64_t> rows;
  molfuse_tensor weight, weight_bias, grad_hidden, grad_weight, grad_weight_bias;
};

/// A leading dimension for n elements: an odd number of 16s, so that consecutive rows do not fall into the same cache sets.
int64_t leading_dimension(int64_t n) { return (divide_up(n, 16) | 1) * 16; }

size_t element_of(const LinearLossProblem& p) { return p.dtype == MOLFUSE_F64 ? 8 : 4; }

Call check_call(const molfuse_linear_vae_loss_args& a, bool backward, bool on_device) {
  const int32_t dtype = a.hidden.dtype;
  if (!is_float(dtype)) invalid("hidden: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(dtype));
  check_shape("hidden", a.hidden, {kAny, kAny, kAny});
  const int64_t batch = a.hidden.size[0], length = a.hidden.size[1], channels = a.hidden.size[2];
  if (channels < 1) invalid("hidden: expected at least one channel, got shape %s", shape_text(a.hidden).c_str());
  check_dtype("weight", a.weight, {dtype});
  check_shape("weight", a.weight, {kAny, channels});
  const int64_t classes = a.weight.size[0];
  if (classes < 1) invalid("weight: expected at least one class, got shape %s", shape_text(a.weight).c_str());
  if (present(a.weight_bias)) {
    check_dtype("weight_bias", a.weight_bias, {dtype});
    check_shape("weight_bias", a.weight_bias, {classes});
  }
  Call call{loss_args(a, dtype, batch, length, classes), {}, {}, a.weight, a.weight_bias, a.grad_hidden, a.grad_weight, a.grad_weight_bias};
  const CheckedTargets checked = check_loss_inputs(call.args, on_device);
  if (present(a.grad_hidden)) {
    check_dtype("grad_hidden", a.grad_hidden, {dtype});
    check_shape("grad_hidden", a.grad_hidden, {batch, length, channels});
    check_output("grad_hidden", a.grad_hidden);
  }
  if (present(a.grad_weight)) {
    check_dtype("grad_weight", a.grad_weight, {call.args.statistics});
    check_shape("grad_weight", a.grad_weight, {classes, channels});
    check_output("grad_weight", a.grad_weight);
  }
  if (present(a.grad_weight_bias)) {
    if (!present(a.weight_bias)) invalid("grad_weight_bias: is given without weight_bias");
    check_dtype("grad_weight_bias", a.grad_weight_bias, {call.args.statistics});
    check_shape("grad_weight_bias", a.grad_weight_bias, {classes});
    check_output("grad_weight_bias", a.grad_weight_bias);
  }
  check_apart({{"grad_hidden", a.grad_hidden}, {"grad_weight", a.grad_weight}, {"grad_weight_bias", a.grad_weight_bias}}, {{"targets", a.targets}});
  const bool want_gradient = present(a.grad_hidden) || present(a.grad_weight) || present(a.grad_weight_bias);
  if (backward) {
    check_backward(call.args, want_gradient);
  } else {
    check_forward_outputs(call.args);
    if (want_gradient && a.reduction == MOLFUSE_REDUCTION_NONE) {
      invalid("grad_hidden, grad_weight, grad_weight_bias: with reduction none they come from backward, which knows grad_nll");
    }
  }

  LinearLossProblem& p = call.problem;
  p.dtype = dtype;
  p.length = length;
  p.channels = channels;
  p.classes = classes;
  p.hidden = a.hidden.data;
  p.hidden_batch = a.hidden.stride[0];
  p.hidden_token = a.hidden.stride[1];
  p.hidden_channel = channels == 1 ? 1 : a.hidden.stride[2];
  p.targets = checked.targets;
  p.backward = backward;
  if (present(a.row_lse)) p.row_lse = token_values(a.row_lse);
  if (!backward && present(a.nll)) p.nll = token_values(a.nll);
  if (present(a.grad_hidden)) {
    p.grad_hidden = a.grad_hidden.data;
    p.grad_batch = a.grad_hidden.stride[0];
    p.grad_token = a.grad_hidden.stride[1];
    p.grad_channel = channels == 1 ? 1 : a.grad_hidden.stride[2];
  }
  // The rest is for the CPU's division into tasks, by the targets' values.
  if (on_device) return call;
  if (backward && present(a.grad_nll)) {
    p.grad_nll = token_values(a.grad_nll);
  } else if (backward) {
    p.row_scale = token_scale(call.args);
  } else {
    p.row_scale = forward_token_scale(call.args, checked.unmasked);
  }
  call.rows.reserve(static_cast<size_t>(checked.unmasked));
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < length; ++t) {
      if (p.targets.at(b, t) != p.targets.pad) call.rows.push_back(b * length + t);
    }
  }
  p.rows = call.rows.data();
  p.row_count = checked.unmasked;
  p.weight_ld = leading_dimension(channels);
  p.block = kLinearBlock;
  while (p.block > 16 && static_cast<size_t>(p.block * channels) * element_of(p) > kBlockBytes) p.block /= 2;
  while (p.block > 16 && p.row_count < 8 * p.block) p.block /= 2;
  p.row_ld = leading_dimension(p.block);
  p.tile = static_cast<size_t>(classes * p.row_ld) * element_of(p) <= kTileBytes ? classes : kTileClasses;
  return call;
}

void zero(char* to, int64_t count, int64_t stride, size_t element) {
  if (stride == 1) {
    std::memset(to, 0, static_cast<size_t>(count) * element);
  } else {
    for (int64_t n = 0; n < count; ++n) std::memset(to + n * stride * static_cast<int64_t>(element), 0, element);
  }
}

/// Zero in every output at the padded tokens, which the kernels never see.
void write_padding(const Call& call) {
  const LinearLossProblem& p = call.problem;
  if (p.row_count == call.args.batch * p.length) return;
  const size_t element = element_of(p), stored = molfuse_dtype_size(p.dtype);
  for (int64_t b = 0; b < call.args.batch; ++b) {
    for (int64_t t = 0; t < p.length; ++t) {
      if (p.targets.at(b, t) != p.targets.pad) continue;
      auto zero_token = [&](const TokenValues& values) {
        if (values.data != nullptr) zero(static_cast<char*>(values.data) + (b * values.batch + t * values.token) * static_cast<int64_t>(element), 1, 1, element);
      };
      if (!p.backward) {
        zero_token(p.row_lse);
        zero_token(p.nll);
      }
      if (p.grad_hidden != nullptr) {
        zero(static_cast<char*>(p.grad_hidden) + (b * p.grad_batch + t * p.grad_token) * static_cast<int64_t>(stored), p.channels, p.grad_channel, stored);
      }
    }
  }
}

/// to[c] = sum of the parts' [k,c], in order.
template <class A>
void sum_parts(const A* parts, int64_t count, int64_t size, int64_t ld, int64_t k, int64_t columns, A* to, int64_t stride) {
  constexpr int64_t kRun = 256;
  A sum[kRun];
  for (int64_t c0 = 0; c0 < columns; c0 += kRun) {
    const int64_t run = std::min(kRun, columns - c0);
    std::fill_n(sum, run, A{0});
    for (int64_t n = 0; n < count; ++n) {
      const A* part = parts + n * size + k * ld + c0;
      for (int64_t c = 0; c < run; ++c) sum[c] += part[c];
    }
    for (int64_t c = 0; c < run; ++c) to[(c0 + c) * stride] = sum[c];
  }
}

/// How a call is shared out and where its memory lies. All by shape, so that the number of threads does not change results.
struct Plan {
  int64_t blocks, parts;   ///< a task is a part: several blocks of rows, with one partial sum of the weight gradient
  bool by_class = false;   ///< the weight gradient in a second pass whose tasks own classes: where partial sums would be too large
  int64_t sum_elements;    ///< of one sum of the weight gradient: weight, then bias
  int64_t weight, softmax, sums, scratch, scratch_elements, total;  ///< offsets in elements

  Plan(const LinearLossProblem& p, bool want_sums, int threads) {
    blocks = divide_up(p.row_count, p.block);
    parts = blocks;
    sum_elements = p.classes * (p.weight_ld + 1);
    if (want_sums) {
      const int64_t bytes = sum_elements * static_cast<int64_t>(element_of(p));
      const int64_t affordable = kPartialBytes / bytes;
      // A part of at least three blocks makes up for its share of the final sum; fewer only where there would be little to share out.
      parts = std::clamp(blocks / 3, std::min<int64_t>(blocks, 8), kMaxParts);
      parts = std::min(parts, std::max<int64_t>(8, kKeptPartialBytes / bytes));
      by_class = affordable < std::min<int64_t>(parts, 4);
      parts = by_class ? blocks : std::min(parts, affordable);
    }
    int64_t at = 0;
    auto take = [&at](int64_t elements) {
      const int64_t begin = at;
      at += divide_up(elements, 16) * 16;
      return begin;
    };
    weight = take(sum_elements);
    softmax = take(by_class && !p.backward ? 2 * p.row_count : 0);
    sums = take(!want_sums ? 0 : by_class ? sum_elements : parts * sum_elements);
    scratch_elements = divide_up(linear_loss_layout(p).total, 16) * 16;
    scratch = take(scratch_elements * threads);
    total = at;
  }
};

/// The weights and their bias in the accumulator type, as the kernels take them.
void pack_weights(Call& call, void* weight, void* bias, int threads) {
  LinearLossProblem& p = call.problem;
  const LinearLossKernels& kernels = select_linear_loss_kernels();
  constexpr int64_t kPackClasses = 64;
  const int64_t tasks = divide_up(p.classes, kPackClasses);
  const int64_t column = p.channels == 1 ? 1 : call.weight.stride[1];
  parallel_tasks(static_cast<int>(std::min<int64_t>(threads, tasks)), tasks, 1, [&](int64_t n, int) {
    const int64_t begin = n * kPackClasses, end = std::min(p.classes, begin + kPackClasses);
    kernels.pack_weight(p.dtype, call.weight.data, call.weight.stride[0], column, p.channels, begin, end, weight, p.weight_ld);
    if (present(call.weight_bias)) {
      kernels.pack_weight(p.dtype, call.weight_bias.data, call.weight_bias.stride[0], 1, 1, begin, end, bias, 1);
    }
  });
  p.weight = weight;
  if (present(call.weight_bias)) p.bias = bias;
}

template <class A>
void write_weight_gradient(const Call& call, const Plan& plan, const A* from, int threads) {
  const LinearLossProblem& p = call.problem;
  const molfuse_tensor &weight = call.grad_weight, &bias = call.grad_weight_bias;
  const int64_t parts = p.row_count == 0 ? 0 : plan.by_class ? 1 : plan.parts, size = plan.sum_elements;
  parallel_tasks(static_cast<int>(std::min<int64_t>(threads, p.classes)), p.classes, 8, [&](int64_t k, int) {
    if (present(weight)) {
      sum_parts(from, parts, size, p.weight_ld, k, p.channels, static_cast<A*>(weight.data) + k * weight.stride[0], weight.stride[1]);
    }
    if (present(bias)) {
      sum_parts(from + p.classes * p.weight_ld, parts, size, 1, k, 1, static_cast<A*>(bias.data) + k * bias.stride[0], 1);
    }
  });
}

#if defined(MOLFUSE_WITH_CUDA)
void run_on_device(const molfuse_linear_vae_loss_args& a, const Call& call, DeviceCall& device) {
  const LinearLossProblem& p = call.problem;
  const LinearDeviceProblem problem{p.channels, p.classes,       a.hidden,      a.weight,           a.weight_bias,     p.targets,
                                    p.row_lse,  p.nll,           a.grad_hidden, a.grad_weight,      a.grad_weight_bias};
  p.backward ? linear_vae_loss_backward_device(problem, call.args, device) : linear_vae_loss_forward_device(problem, call.args, device);
}
#endif

void run(Call& call, const molfuse_execution& caller) {
  LinearLossProblem& p = call.problem;
  // The product alone; the gradients' products only make it longer.
  const double products = static_cast<double>(p.row_count) * static_cast<double>(p.classes) * static_cast<double>(p.channels);
  const molfuse_execution execution = with_worthwhile_threads(caller, products / 25);
  const LinearLossKernels& kernels = select_linear_loss_kernels();
  const bool want_weight = present(call.grad_weight), want_bias = present(call.grad_weight_bias), want_sums = want_weight || want_bias;
  Latent latent(call.args, p.backward);
  const int threads = thread_count(execution, INT64_MAX);
  const Plan plan(p, want_sums, threads);
  std::vector<TokenSums> sums(static_cast<size_t>(plan.blocks));
  const size_t element = element_of(p);
  const bool want_rows = plan.blocks > 0 && (!p.backward || p.grad_hidden != nullptr || want_sums);
  const Scratch memory(want_rows ? static_cast<size_t>(plan.total) * element : 0);
  auto at = [&](int64_t offset) { return memory.at<char>(static_cast<size_t>(offset) * element); };
  const int64_t bias_offset = p.classes * p.weight_ld;
  auto gradient_at = [&](int64_t offset) {
    return WeightGradient{want_weight ? at(offset) : nullptr, want_bias ? at(offset + bias_offset) : nullptr, true};
  };
  if (want_rows) pack_weights(call, at(plan.weight), at(plan.weight + bias_offset), threads);
  if (plan.by_class && !p.backward) {
    p.shift = at(plan.softmax);
    p.inverse = at(plan.softmax + p.row_count);
  }

  // Backward's losses are nobody's wish: without gradients of its own the first pass has nothing to do.
  const bool first_pass = want_rows && !(p.backward && plan.by_class && p.grad_hidden == nullptr);
  const int64_t parts = first_pass ? plan.parts : 0, total = parts + latent.tasks();
  const int used = static_cast<int>(std::min<int64_t>(threads, std::max<int64_t>(total, 1)));
  parallel_tasks(used, total, 1, [&](int64_t n, int thread) {
    if (n >= parts) {
      p.backward ? latent.backward(n - parts) : latent.forward(n - parts);
      return;
    }
    WeightGradient gradient{nullptr, nullptr, true};
    if (want_sums && !plan.by_class) gradient = gradient_at(plan.sums + n * plan.sum_elements);
    for (int64_t block = plan.blocks * n / parts; block < plan.blocks * (n + 1) / parts; ++block) {
      kernels.rows(p, block * p.block, std::min(p.row_count, (block + 1) * p.block), gradient,
                   at(plan.scratch + thread * plan.scratch_elements), &sums[static_cast<size_t>(block)]);
      gradient.first = false;
    }
  });
  write_padding(call);
  if (!p.backward) write_statistics(call.args, sums, p.row_count, latent);
  if (!want_sums) return;

  if (plan.by_class) {
    const int64_t tile = std::min(p.tile, kTileClasses), tasks = divide_up(p.classes, tile);
    parallel_tasks(static_cast<int>(std::min<int64_t>(threads, tasks)), tasks, 1, [&](int64_t n, int thread) {
      kernels.classes(p, n * tile, std::min(p.classes, (n + 1) * tile), gradient_at(plan.sums),
                      at(plan.scratch + thread * plan.scratch_elements));
    });
  }
  if (p.dtype == MOLFUSE_F64) {
    write_weight_gradient(call, plan, reinterpret_cast<const double*>(at(plan.sums)), threads);
  } else {
    write_weight_gradient(call, plan, reinterpret_cast<const float*>(at(plan.sums)), threads);
  }
}

void run_any(const molfuse_linear_vae_loss_args* args, const molfuse_execution* execution, const char* name, bool backward) {
  const molfuse_execution where = read_execution(execution, name);
  const molfuse_linear_vae_loss_args a = read_args(args, name);
  Call call = check_call(a, backward, where.device_type == MOLFUSE_CUDA);
#if defined(MOLFUSE_WITH_CUDA)
  if (where.device_type == MOLFUSE_CUDA) {
    DeviceCall device(where, name);
    return run_on_device(a, call, device);
  }
#endif
  run(call, where);
}

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" {

molfuse_status molfuse_linear_vae_loss_forward(const molfuse_linear_vae_loss_args* args, const molfuse_execution* execution) {
  return guard([&] { run_any(args, execution, "molfuse_linear_vae_loss_forward", false); });
}

molfuse_status molfuse_linear_vae_loss_backward(const molfuse_linear_vae_loss_args* args, const molfuse_execution* execution) {
  return guard([&] { run_any(args, execution, "molfuse_linear_vae_loss_backward", true); });
}

}  // extern "C"
