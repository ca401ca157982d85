// SPDX-License-Identifier: Apache-2.0
// The divergence of a diagonal Gaussian from the standard one, and its gradients.
#include "runtime/simd_math.h"
#include "vae_loss/kernels.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

constexpr double kLowest = -20, kHighest = 10;  // bounds of log_var

/// One vector of elements n < count of a row with any stride.
template <class T>
MOLFUSE_INLINE vec<accumulate_t<T>> read(const T* row, int64_t stride, int64_t count) {
  using A = accumulate_t<T>;
  if (stride == 1) return count >= width<A> ? load(row) : load_partial(row, count);
  vec<A> v{};
  for (int64_t n = 0; n < count && n < width<A>; ++n) v[n] = to_float(row[n * stride]);
  return v;
}
template <class T>
MOLFUSE_INLINE void write(T* row, int64_t stride, int64_t count, vec<accumulate_t<T>> v) {
  using A = accumulate_t<T>;
  if (stride == 1 && count >= width<A>) {
    store(row, v);
    return;
  }
  for (int64_t n = 0; n < count && n < width<A>; ++n) row[n * stride] = FromFloat<T>::of(v[n]);
}

template <class A>
MOLFUSE_INLINE vec<A> clamp(vec<A> x) {
  const A low = static_cast<A>(kLowest), high = static_cast<A>(kHighest);
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
      const vec<A> mean = read(row_of<const T>(p.mean, b, l), p.mean.column, stop - l);
      const vec<A> lv = clamp<A>(read(row_of<const T>(p.log_var, b, l), p.log_var.column, stop - l));
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
  const A low = static_cast<A>(kLowest), high = static_cast<A>(kHighest);
  const A whole = static_cast<A>(scale), half = static_cast<A>(0.5 * scale);
  for (int64_t l = begin; l < end; l += width<A>) {
    if (p.grad_mean.data != nullptr) {
      write(row_of<T>(p.grad_mean, b, l), p.grad_mean.column, end - l, read(row_of<const T>(p.mean, b, l), p.mean.column, end - l) * whole);
    }
    if (p.grad_log_var.data != nullptr) {
      const vec<A> lv = read(row_of<const T>(p.log_var, b, l), p.log_var.column, end - l);
      const vec<A> inside = (exp(clamp<A>(lv)) - A{1}) * half;
      write(row_of<T>(p.grad_log_var, b, l), p.grad_log_var.column, end - l, lv < low || lv > high ? vec<A>{} : inside);
    }
  }
}

double forward_any(const LatentProblem& p, int64_t b, int64_t begin, int64_t end) {
  switch (p.dtype) {
    case MOLFUSE_F64: return forward<double>(p, b, begin, end);
    case MOLFUSE_F16: return forward<f16>(p, b, begin, end);
    case MOLFUSE_BF16: return forward<bf16>(p, b, begin, end);
    default: return forward<float>(p, b, begin, end);
  }
}
void backward_any(const LatentProblem& p, int64_t b, int64_t begin, int64_t end, double scale) {
  switch (p.dtype) {
    case MOLFUSE_F64: backward<double>(p, b, begin, end, scale); break;
    case MOLFUSE_F16: backward<f16>(p, b, begin, end, scale); break;
    case MOLFUSE_BF16: backward<bf16>(p, b, begin, end, scale); break;
    default: backward<float>(p, b, begin, end, scale); break;
  }
}

}  // namespace

const LatentKernels latent_kernels = {forward_any, backward_any};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse
