// SPDX-License-Identifier: Apache-2.0
// The passes over node features. Memory-bound: each element is read in long runs and written once a pass; what depends on the column
// only stays in cache.
#include "encoder_epilogue/kernels.h"
#include "runtime/simd_math.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

// Rows read together for the statistics: see latent_concat on why no more.
constexpr int kRowsAtOnce = 4;

template <class T>
MOLFUSE_INLINE T* row_of(const EpilogueRows& rows, int64_t v, int64_t column) {
  return static_cast<T*>(rows.data) + v * rows.row + column;
}

/// The random halves of the elements of a row's columns, in order; the first of them is halves[return value].
int64_t draw_row(const EpilogueProblem& p, int64_t first, int64_t count, uint16_t* halves) {
  const int64_t begin = first / 8, end = (first + count + 7) / 8;
  const uvec<float> lane = bit_copy<uvec<float>>(lane_numbers<float>());
  const uvec<float> c2 = uvec<float>{} + static_cast<uint32_t>(p.philox.offset), c3 = uvec<float>{} + static_cast<uint32_t>(p.philox.offset >> 32);
  for (int64_t g = begin; g < end; g += width<float>) {
    const uint64_t group = static_cast<uint64_t>(g);
    // The counter's high word changes within a vector only if the low one wraps there.
    const uvec<float> low = lane + static_cast<uint32_t>(group);
    const uvec<float> wrapped = bit_copy<uvec<float>>(low < static_cast<uint32_t>(group));  // -1 where it did
    const uvec<float> high = (uvec<float>{} + static_cast<uint32_t>(group >> 32)) - wrapped;
    const PhiloxVectors drawn =
        philox(low, high, c2, c3, static_cast<uint32_t>(p.philox.seed), static_cast<uint32_t>(p.philox.seed >> 32));
    for (int n = 0; n < width<float>; ++n) {
      const uint32_t words[4] = {drawn.w[0][n], drawn.w[1][n], drawn.w[2][n], drawn.w[3][n]};
      // Little-endian: a word's low half comes first, as the contract counts them.
      __builtin_memcpy(halves + 8 * (g - begin + n), words, sizeof words);
    }
  }
  return first - 8 * begin;
}

/// Where halves[0 .. count-1] keep their element; lanes past count are not.
template <class A>
MOLFUSE_INLINE ivec<A> kept(const uint16_t* halves, uint32_t threshold, int64_t count) {
  using Int = typename VecTypes<A>::Int;
  typedef uint16_t Narrow __attribute__((vector_size(width<A> * 2)));
  Narrow narrow;
  if (count >= width<A>) {
    __builtin_memcpy(&narrow, halves, sizeof narrow);
  } else {
    uint16_t some[width<A>] = {};
    __builtin_memcpy(some, halves, static_cast<size_t>(count) * sizeof *halves);
    __builtin_memcpy(&narrow, some, sizeof narrow);
  }
  return __builtin_convertvector(narrow, ivec<A>) >= static_cast<Int>(threshold);
}

template <class A>
MOLFUSE_INLINE vec<A> at(const void* array, int64_t c, int64_t count) {
  const A* const from = static_cast<const A*>(array) + c;
  return count >= width<A> ? load(from) : load_partial(from, count);
}
template <class A>
MOLFUSE_INLINE void put(void* array, int64_t c, int64_t count, vec<A> v) {
  A* const to = static_cast<A*>(array) + c;
  if (count >= width<A>) {
    store(to, v);
  } else {
    store_partial(to, count, v);
  }
}
template <class T>
MOLFUSE_INLINE vec<accumulate_t<T>> read(const T* row, int64_t count) {
  return count >= width<accumulate_t<T>> ? load(row) : load_partial(row, count);
}
template <class T>
MOLFUSE_INLINE void write(T* row, int64_t count, vec<accumulate_t<T>> v) {
  if (count >= width<accumulate_t<T>>) {
    store(row, v);
  } else {
    store_partial(row, count, v);
  }
}

template <class A>
void load_columns(const EpilogueColumns& columns, int64_t count, double factor, void* to) {
  with_type(columns.dtype, [&](auto tag) __attribute__((always_inline)) {
    const auto* const from = static_cast<const typename decltype(tag)::type*>(columns.data);
    for (int64_t n = 0; n < count; ++n) static_cast<A*>(to)[n] = static_cast<A>(to_float(from[n * columns.step])) * static_cast<A>(factor);
  });
}

template <class A>
void store_columns(const EpilogueColumns& columns, int64_t count, double factor, const void* from) {
  with_type(columns.dtype, [&](auto tag) __attribute__((always_inline)) {
    using To = typename decltype(tag)::type;
    To* const to = static_cast<To*>(columns.data);
    for (int64_t n = 0; n < count; ++n) {
      const A value = static_cast<const A*>(from)[n] * static_cast<A>(factor);
      to[n * columns.step] = FromFloat<To>::of(static_cast<accumulate_t<To>>(value));
    }
  });
}

template <class T>
void add_residual(const EpilogueProblem& p, const EpilogueBlock& block) {
  using A = accumulate_t<T>;
  for (int64_t v = block.row_begin; v < block.row_end; ++v) {
    const T* const a = row_of<T>(p.input, v, 0);
    const T* const b = row_of<T>(p.residual, v, 0);
    T* const sum = row_of<T>(p.sum, v, 0);
    for (int64_t c = block.column_begin; c < block.column_end; c += width<A>) {
      const int64_t count = block.column_end - c;
      write<T>(sum + c, count, read<T>(a + c, count) + read<T>(b + c, count));
    }
  }
}

/// Joins the mean and squared distances of ROWS further rows to those of `before` rows (Chan, Golub, LeVeque 1979).
template <class T, int ROWS>
MOLFUSE_INLINE void add_rows(const EpilogueRows& x, int64_t v, int64_t before, const EpilogueBlock& block, void* mean, void* m2) {
  using A = accumulate_t<T>;
  const A rows = ROWS, all = static_cast<A>(before) + rows, share = rows / all, weight = static_cast<A>(before) * share;
  for (int64_t c = block.column_begin; c < block.column_end; c += width<A>) {
    const int64_t count = block.column_end - c, n = c - block.column_begin;
    vec<A> value[ROWS], sum{}, squares{};
    for (int r = 0; r < ROWS; ++r) {
      value[r] = read<T>(row_of<const T>(x, v + r, c), count);
      sum += value[r];
    }
    const vec<A> own = sum * (A{1} / rows);
    for (int r = 0; r < ROWS; ++r) squares += (value[r] - own) * (value[r] - own);
    if (before == 0) {
      put<A>(mean, n, count, own);
      put<A>(m2, n, count, squares);
    } else {
      const vec<A> old = at<A>(mean, n, count), distance = own - old;
      put<A>(mean, n, count, old + distance * share);
      put<A>(m2, n, count, at<A>(m2, n, count) + squares + distance * distance * weight);
    }
  }
}

template <class T>
void statistics(const EpilogueProblem& p, const EpilogueBlock& block, void* mean, void* m2) {
  if (p.residual.data != nullptr) add_residual<T>(p, block);
  if (mean == nullptr) return;
  const EpilogueRows& x = p.residual.data != nullptr ? p.sum : p.input;
  int64_t v = block.row_begin;
  for (; v + kRowsAtOnce <= block.row_end; v += kRowsAtOnce) add_rows<T, kRowsAtOnce>(x, v, v - block.row_begin, block, mean, m2);
  for (; v < block.row_end; ++v) add_rows<T, 1>(x, v, v - block.row_begin, block, mean, m2);
}

template <class T>
void apply(const EpilogueProblem& p, const EpilogueBlock& block) {
  using A = accumulate_t<T>;
  const EpilogueRows& x = p.residual.data != nullptr ? p.sum : p.input;
  uint16_t* const halves = static_cast<uint16_t*>(block.scratch);
  const int64_t columns = block.column_end - block.column_begin;
  const A scale = static_cast<A>(p.keep_scale);
  for (int64_t v = block.row_begin; v < block.row_end; ++v) {
    const T* const from = row_of<T>(x, v, block.column_begin);
    T* const to = row_of<T>(p.out, v, block.column_begin);
    const int64_t first = p.threshold != 0 ? draw_row(p, v * p.columns + block.column_begin, columns, halves) : 0;
    for (int64_t c = 0; c < columns; c += width<A>) {
      const int64_t count = columns - c;
      vec<A> y = (read<T>(from + c, count) - at<A>(block.mean, c, count)) * at<A>(block.scale, c, count) + at<A>(block.shift, c, count);
      y = y <= A{0} ? vec<A>{} : y;  // NaN stays
      if (p.threshold != 0) y = kept<A>(halves + first + c, p.threshold, count) ? y * scale : vec<A>{};
      write<T>(to + c, count, y);
      if (block.pooled != nullptr) put<A>(block.pooled, c, count, at<A>(block.pooled, c, count) + y);
    }
  }
}

/// Calls use(v, c, count, gradient, normalised x) for vectors of a block: the gradient of y, before the normalisation.
template <class T, class Use>
MOLFUSE_INLINE void each_gradient(const EpilogueProblem& p, const EpilogueBlock& block, Use&& use) {
  using A = accumulate_t<T>;
  uint16_t* const halves = static_cast<uint16_t*>(block.scratch);
  const int64_t columns = block.column_end - block.column_begin;
  const A scale = static_cast<A>(p.keep_scale);
  for (int64_t v = block.row_begin; v < block.row_end; ++v) {
    const T* const from = row_of<T>(p.input, v, block.column_begin);
    const T* const grad = p.grad_out.data != nullptr ? row_of<T>(p.grad_out, v, block.column_begin) : nullptr;
    const int64_t first = p.threshold != 0 ? draw_row(p, v * p.columns + block.column_begin, columns, halves) : 0;
    for (int64_t c = 0; c < columns; c += width<A>) {
      const int64_t count = columns - c;
      const vec<A> centred = read<T>(from + c, count) - at<A>(block.mean, c, count);
      const vec<A> y = centred * at<A>(block.scale, c, count) + at<A>(block.shift, c, count);
      vec<A> g = grad != nullptr ? read<T>(grad + c, count) : vec<A>{};
      if (block.grad_pooled != nullptr) g += at<A>(block.grad_pooled, c, count);
      g = y <= A{0} ? vec<A>{} : g;
      if (p.threshold != 0) g = kept<A>(halves + first + c, p.threshold, count) ? g * scale : vec<A>{};
      use(v, c, count, g, centred * at<A>(block.rstd, c, count));
    }
  }
}

template <class T>
void gradient_sums(const EpilogueProblem& p, const EpilogueBlock& block, void* sum_bias, void* sum_weight) {
  using A = accumulate_t<T>;
  each_gradient<T>(p, block, [&](int64_t, int64_t c, int64_t count, vec<A> g, vec<A> normalised) __attribute__((always_inline)) {
    put<A>(sum_bias, c, count, at<A>(sum_bias, c, count) + g);
    put<A>(sum_weight, c, count, at<A>(sum_weight, c, count) + g * normalised);
  });
}

template <class T>
void gradient(const EpilogueProblem& p, const EpilogueBlock& block) {
  using A = accumulate_t<T>;
  each_gradient<T>(p, block, [&](int64_t v, int64_t c, int64_t count, vec<A> g, vec<A> normalised) __attribute__((always_inline)) {
    if (p.training) g -= at<A>(block.sum_bias, c, count) + normalised * at<A>(block.sum_weight, c, count);
    write<T>(row_of<T>(p.grad_input, v, block.column_begin) + c, count, g * at<A>(block.scale, c, count));
  });
}

template <class T>
constexpr EncoderEpilogueKernels kernels_of() {
  return {load_columns<accumulate_t<T>>, store_columns<accumulate_t<T>>, statistics<T>, apply<T>, gradient_sums<T>, gradient<T>};
}

}  // namespace

const EncoderEpilogueTable encoder_epilogue_kernels = {{kernels_of<float>(), kernels_of<double>(), kernels_of<f16>(), kernels_of<bf16>()}};

}  // namespace MOLFUSE_ISA
}  // namespace molfuse
