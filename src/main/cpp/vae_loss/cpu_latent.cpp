// SPDX-License-Identifier: Apache-2.0
// The divergence of a diagonal Gaussian from the standard one, and its gradients.
#include "runtime/log_var.h"
#include "runtime/simd_math.h"
#include "vae_loss/kernels.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

template <class A>
MOLFUSE_INLINE vec<A> clamp(vec<A> x) {
  const A low = static_cast<A>(kLogVarLowest), high = static_cast<A>(kLogVarHighest);
  return x < low ? splat<A>(low) : (x > high ? splat<A>(high) : x);
}

template <class T>
T* row_of(const LatentMatrix& matrix, int64_t b, int64_t column) {
  return static_cast<T*>(matrix.data) + b * matrix.row + column * matrix.column;
}

template <class T>
double forward(const LatentProblem& p, int64_t b, int64_t begin, int64_t end) {
  using A = accumulate_t<T>;
  // Lanes add up at most this many terms before they go to f64.
  constexpr int64_t kRun = 32 * width<A>;
  double sum = 0;
  for (int64_t run = begin; run < end; run += kRun) {
    const int64_t stop = end - run < kRun ? end : run + kRun;
    vec<A> part{};
    for (int64_t l = run; l < stop; l += width<A>) {
      const vec<A> mean = read_lanes(row_of<const T>(p.mean, b, l), p.mean.column, stop - l);
      const vec<A> lv = clamp<A>(read_lanes(row_of<const T>(p.log_var, b, l), p.log_var.column, stop - l));
      // Missing lanes are mean = log_var = 0, whose term is 0.
      part += mean * mean + ((exp(lv) - A{1}) - lv);
    }
    A lane[width<A>];
    __builtin_memcpy(lane, &part, sizeof part);
    for (int n = 0; n < width<A>; ++n) sum += static_cast<double>(lane[n]);
  }
  return 0.5 * sum;
}

template <class T>
void backward(const LatentProblem& p, int64_t b, int64_t begin, int64_t end, double scale) {
  using A = accumulate_t<T>;
  const A low = static_cast<A>(kLogVarLowest), high = static_cast<A>(kLogVarHighest);
  const A whole = static_cast<A>(scale), half = static_cast<A>(0.5 * scale);
  for (int64_t l = begin; l < end; l += width<A>) {
    if (p.grad_mean.data != nullptr) {
      write_lanes(row_of<T>(p.grad_mean, b, l), p.grad_mean.column, end - l, read_lanes(row_of<const T>(p.mean, b, l), p.mean.column, end - l) * whole);
    }
    if (p.grad_log_var.data != nullptr) {
      const vec<A> lv = read_lanes(row_of<const T>(p.log_var, b, l), p.log_var.column, end - l);
      const vec<A> inside = (exp(clamp<A>(lv)) - A{1}) * half;
      write_lanes(row_of<T>(p.grad_log_var, b, l), p.grad_log_var.column, end - l, lv < low || lv > high ? vec<A>{} : inside);
    }
  }
}

double forward_any(const LatentProblem& p, int64_t b, int64_t begin, int64_t end) {
  double sum = 0;
  with_type(p.dtype, [&](auto tag) { sum = forward<typename decltype(tag)::type>(p, b, begin, end); });
  return sum;
}
void backward_any(const LatentProblem& p, int64_t b, int64_t begin, int64_t end, double scale) {
  with_type(p.dtype, [&](auto tag) { backward<typename decltype(tag)::type>(p, b, begin, end, scale); });
}

}  // namespace

const LatentKernels latent_kernels = {forward_any, backward_any};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse
