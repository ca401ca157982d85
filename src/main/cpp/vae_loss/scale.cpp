// SPDX-License-Identifier: Apache-2.0
// C entry point of vae_loss_scale, for the gradients that forward of either loss writes.
#include <algorithm>

#include "runtime/parallel.h"
#include "vae_loss/device.h"

namespace molfuse {
namespace {

constexpr int64_t kTaskElements = int64_t{1} << 15;

void check_scale(const molfuse_vae_loss_scale_args& a) {
  const int32_t dtype = a.gradient.dtype;
  if (!is_float(dtype)) invalid("gradient: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(dtype));
  check_shape("gradient", a.gradient, {kAny});
  check_dtype("out", a.out, {dtype});
  check_shape("out", a.out, {a.gradient.size[0]});
  for (const auto& [name, tensor] : {std::pair<const char*, const molfuse_tensor*>{"gradient", &a.gradient}, {"out", &a.out}}) {
    if (tensor->size[0] > 1 && tensor->stride[0] != 1) {
      unsupported("%s: expected elements side by side (stride 1), got stride %lld", name, static_cast<long long>(tensor->stride[0]));
    }
  }
  if (!is_float(a.input_dtype)) invalid("input_dtype: expected f16, bf16, f32 or f64, got %s", molfuse_dtype_name(a.input_dtype));
  const int32_t statistics = accumulate_dtype(a.input_dtype);
  if (dtype != a.input_dtype && dtype != statistics) {
    invalid("gradient: expected element type %s or %s, got %s", molfuse_dtype_name(a.input_dtype), molfuse_dtype_name(statistics), molfuse_dtype_name(dtype));
  }
  for (const auto& [name, tensor] : {std::pair<const char*, const molfuse_tensor*>{"stats", &a.stats}, {"grad_stats", &a.grad_stats}}) {
    check_dtype(name, *tensor, {statistics});
    check_shape(name, *tensor, {MOLFUSE_VAE_STATS});
  }
  if (a.reduction != MOLFUSE_REDUCTION_MEAN && a.reduction != MOLFUSE_REDUCTION_SUM) {
    invalid("reduction: expected mean (%d) or sum (%d), got %d", MOLFUSE_REDUCTION_MEAN, MOLFUSE_REDUCTION_SUM, a.reduction);
  }
}

double factor_of(const molfuse_vae_loss_scale_args& a) {
  const double count = read_scalar(a.stats, MOLFUSE_VAE_TOKEN_COUNT) + 1e-8;
  double factor = read_scalar(a.grad_stats, MOLFUSE_VAE_TOTAL) + read_scalar(a.grad_stats, MOLFUSE_VAE_RECON);
  const double perplexity = read_scalar(a.grad_stats, MOLFUSE_VAE_PERPLEXITY);
  // An infinite perplexity that nobody differentiates must not make a NaN.
  if (perplexity != 0) {
    const double slope = perplexity * read_scalar(a.stats, MOLFUSE_VAE_PERPLEXITY);
    factor += a.reduction == MOLFUSE_REDUCTION_SUM ? slope / count : slope;
  }
  return a.reduction == MOLFUSE_REDUCTION_MEAN && a.input_dtype == MOLFUSE_F16 ? factor / count : factor;
}

void run(const molfuse_vae_loss_scale_args& a, const molfuse_execution& caller) {
  check_scale(a);
  if (a.gradient.size[0] == 0) return;
  MOLFUSE_ON_DEVICE(caller, "molfuse_vae_loss_scale", vae_loss_scale_device, a)
  const double factor = factor_of(a);
  if (factor == 1 && a.out.data == a.gradient.data) return;
  const int64_t count = a.gradient.size[0], element = static_cast<int64_t>(molfuse_dtype_size(a.gradient.dtype));
  const int64_t tasks = divide_up(count, kTaskElements);
  const int threads = thread_count(with_worthwhile_threads(caller, static_cast<double>(count * element) / 5), tasks);
  const auto scale = select_vae_loss_kernels().scale;
  parallel_tasks(threads, tasks, chunk_of(tasks, threads), [&](int64_t n, int) {
    const int64_t begin = n * kTaskElements;
    scale(a.gradient.dtype, static_cast<const char*>(a.gradient.data) + begin * element, static_cast<char*>(a.out.data) + begin * element,
          std::min(kTaskElements, count - begin), factor);
  });
}

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" molfuse_status molfuse_vae_loss_scale(const molfuse_vae_loss_scale_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_vae_loss_scale");
    run(read_args(args, "molfuse_vae_loss_scale"), where);
  });
}
