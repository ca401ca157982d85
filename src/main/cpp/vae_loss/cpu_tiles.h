// SPDX-License-Identifier: Apache-2.0
// The loss of given logits [B,K,T] read in place: vectors run over tokens, so nothing is transposed and nothing summed over lanes.
#pragma once

#include "vae_loss/cpu_rows.h"

namespace molfuse {
namespace MOLFUSE_ISA {
namespace {

// Classes of a chunk of the online softmax: with kTileTokens tokens it stays in a first-level cache between its two sweeps.
constexpr int64_t kTileClasses = 64;
/// First token of a column (a vector over tokens) of a tile of `count` tokens: the last column may overlap the one before. A tile
/// narrower than a vector has one column, which may not be loaded as a whole.
template <class A>
MOLFUSE_INLINE int64_t column_at(int64_t column, int64_t count) {
  const int64_t at = column * width<A>;
  return count < width<A> || at + width<A> <= count ? at : count - width<A>;
}

template <class A>
struct TileState {
  alignas(64) A shift[kTileTokens];
  alignas(64) A total[kTileTokens];
  alignas(64) typename VecTypes<A>::Int equal[kTileTokens];  // how many classes have the maximum
};

/// largest[i] = the largest of the columns i and their earlier maxima: several at a time, as this is what brings the tile into cache.
template <class A, int COLUMNS>
MOLFUSE_INLINE void column_maxima(const A* x, int64_t ld, int64_t classes, const A* old, A* largest, int64_t at, int64_t last) {
  vec<A> m[COLUMNS];
#pragma GCC unroll 4
  for (int c = 0; c < COLUMNS; ++c) m[c] = load(old + (c + 1 == COLUMNS ? last : at + c * width<A>));
  for (int64_t k = 0; k < classes; ++k) {
    const A* row = x + k * ld;
#pragma GCC unroll 4
    for (int c = 0; c < COLUMNS; ++c) m[c] = maximum(m[c], load(row + (c + 1 == COLUMNS ? last : at + c * width<A>)));
  }
#pragma GCC unroll 4
  for (int c = 0; c < COLUMNS; ++c) store(largest + (c + 1 == COLUMNS ? last : at + c * width<A>), m[c]);
}

/// Adds a chunk of classes to the softmax of all columns. An overlapping column must see the state before its neighbour's update.
template <class A>
MOLFUSE_INLINE void add_classes(const A* x, int64_t ld, int64_t classes, int64_t count, const TileState<A>& from, TileState<A>& to) {
  const int64_t columns = (count + width<A> - 1) / width<A>;
  for (int64_t c = 0; c < columns;) {
    const int64_t at = c * width<A>;
    switch (columns - c) {
      case 1: column_maxima<A, 1>(x, ld, classes, from.shift, to.shift, at, column_at<A>(c, count)); c += 1; break;
      case 2: column_maxima<A, 2>(x, ld, classes, from.shift, to.shift, at, column_at<A>(c + 1, count)); c += 2; break;
      case 3: column_maxima<A, 3>(x, ld, classes, from.shift, to.shift, at, column_at<A>(c + 2, count)); c += 3; break;
      default: column_maxima<A, 4>(x, ld, classes, from.shift, to.shift, at, column_at<A>(c + 3, count)); c += 4; break;
    }
  }
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t at = column_at<A>(c, count);
    const vec<A> old = load(from.shift + at), before = load(from.total + at), largest = load(to.shift + at);
    // While all is -inf the difference would be NaN; shifting by 0 gives a total of 0.
    const vec<A> safe = largest == -infinity<A> ? vec<A>{} : largest;
    const ivec<A> kept = old == largest;
    ivec<A> equal;
    __builtin_memcpy(&equal, from.equal + at, sizeof equal);
    equal &= kept;
    vec<A> total = kept ? before : before * exp_softmax(old - safe);
    const A* column = x + at;
    for (int64_t k = 0; k < classes; ++k) {
      const vec<A> v = load(column + k * ld);
      equal -= v == largest;
      total += exp_softmax(v - safe);
    }
    store(to.total + at, total);
    __builtin_memcpy(to.equal + at, &equal, sizeof equal);
  }
}

/// What backward needs of each token of a tile, by column; scale is 0 at padding.
template <class A>
struct TileTokens {
  alignas(64) A shift[kTileTokens];
  alignas(64) A scale[kTileTokens];
  alignas(64) A factor[kTileTokens];
  alignas(64) A target_logit[kTileTokens];
  alignas(64) A target_gradient[kTileTokens];
  alignas(64) typename VecTypes<A>::Int unmasked[kTileTokens];  // -1 or 0
  // By column, not token, as the last may overlap its neighbour.
  alignas(64) A total[kTileTokens + width<A>];
};

/// kTotals: the sums of the terms are there already, by column, and the terms are computed once more only.
template <class T, bool kPartial, bool kKeep, bool kTotals = false>
MOLFUSE_INLINE void backward_columns(const VaeLossProblem& p, const T* x, T* out, int64_t count, TileTokens<accumulate_t<T>>& tokens,
                                     accumulate_t<T>* terms) {
  using A = accumulate_t<T>;
  const int64_t columns = (count + width<A> - 1) / width<A>, terms_ld = columns * width<A>;
  auto term = [&](int64_t k, int64_t at) __attribute__((always_inline)) {
    const T* from = x + k * p.logits_class + at;
    return exp_softmax((kPartial ? load_partial(from, count) : load(from)) - load(tokens.shift + at));
  };
  for (int64_t c = 0; c < columns && !kTotals; ++c) store(tokens.total + c * width<A>, vec<A>{});
  for (int64_t k = 0; k < p.classes && !kTotals; ++k) {
    for (int64_t c = 0; c < columns; ++c) {
      const vec<A> e = term(k, column_at<A>(c, count));
      store(tokens.total + c * width<A>, load(tokens.total + c * width<A>) + e);
      if (kKeep) store(terms + k * terms_ld + c * width<A>, e);
    }
  }
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t at = column_at<A>(c, count);
    const vec<A> inverse = A{1} / load(tokens.total + c * width<A>), scale = load(tokens.scale + at);
    const vec<A> target = exp_softmax(load(tokens.target_logit + at) - load(tokens.shift + at));
    store(tokens.target_gradient + at, (target * inverse - A{1}) * scale);
    store(tokens.factor + at, inverse * scale);
  }
  for (int64_t k = 0; k < p.classes; ++k) {
    T* to = out + k * p.grad_class;
    // The overlapping column is made before its neighbour is written, which may share memory with the logits.
    const vec<A> last = kKeep ? vec<A>{} : term(k, column_at<A>(columns - 1, count));
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t at = column_at<A>(c, count);
      const vec<A> e = kKeep ? load(terms + k * terms_ld + c * width<A>) : c + 1 < columns ? term(k, at) : last;
      ivec<A> unmasked;
      __builtin_memcpy(&unmasked, tokens.unmasked + at, sizeof unmasked);
      // Selected, not multiplied by 0: a masked token's logits may be NaN.
      const vec<A> gradient = unmasked ? e * load(tokens.factor + at) : vec<A>{};
      if (kPartial) {
        store_partial(to, count, gradient);
      } else {
        store(to + at, gradient);
      }
    }
  }
}

template <class T, bool kTotals>
MOLFUSE_INLINE void write_tile_gradient(const VaeLossProblem& p, const T* logits, int64_t b, int64_t begin, int64_t count,
                                        TileTokens<accumulate_t<T>>& tokens, accumulate_t<T>* terms) {
  using A = accumulate_t<T>;
  T* out = static_cast<T*>(p.grad_logits) + b * p.grad_batch + begin;
  if (count < width<A>) {
    backward_columns<T, true, false, kTotals>(p, logits, out, count, tokens, terms);
  } else if (!kTotals && p.classes <= kKeptClasses) {
    backward_columns<T, false, !kTotals, kTotals>(p, logits, out, count, tokens, terms);
  } else {
    backward_columns<T, false, false, kTotals>(p, logits, out, count, tokens, terms);
  }
  for (int64_t n = 0; n < count; ++n) {
    if (tokens.unmasked[n] != 0) out[p.targets.at(b, begin + n) * p.grad_class + n] = FromFloat<T>::of(tokens.target_gradient[n]);
  }
}

template <class T>
void forward_tile(const VaeLossProblem& p, int64_t b, int64_t begin, int64_t end, TokenSums* sums) {
  using A = accumulate_t<T>;
  const int64_t count = end - begin;
  const T* logits = static_cast<const T*>(p.logits) + b * p.logits_batch + begin;
  alignas(64) A buffer[kTileClasses * kTileTokens];
  TileState<A> state[2];
  for (int64_t n = 0; n < kTileTokens; ++n) {
    state[0].shift[n] = -infinity<A>;
    state[0].total[n] = 0;
    state[0].equal[n] = 0;
  }
  int now = 0;
  for (int64_t k0 = 0; k0 < p.classes; k0 += kTileClasses, now = 1 - now) {
    const int64_t classes = p.classes - k0 < kTileClasses ? p.classes - k0 : kTileClasses;
    const T* chunk = logits + k0 * p.logits_class;
    const A* x = buffer;
    int64_t ld = kTileTokens;
    if (sizeof(T) == sizeof(A) && count >= width<A>) {
      x = reinterpret_cast<const A*>(chunk);
      ld = p.logits_class;
    } else {
      for (int64_t k = 0; k < classes; ++k) {
        const T* from = chunk + k * p.logits_class;
        A* to = buffer + k * ld;
        if (count < width<A>) {
          store(to, load_partial(from, count));
        } else {
          each_vector<A>(count, [&](int64_t j, int64_t) __attribute__((always_inline)) { store(to + j, load(from + j)); });
        }
      }
    }
    add_classes(x, ld, classes, count, state[now], state[1 - now]);
  }
  const TileState<A>& last = state[now];
  TokenBlock<A> block;
  int64_t correct = 0;
  for (int64_t n = 0; n < count; ++n) {
    const int64_t target = p.targets.at(b, begin + n);
    if (target == p.targets.pad) {
      block.shift[n] = 0;
      block.total[n] = 1;
      block.target[n] = 0;
      continue;
    }
    const A logit = static_cast<A>(to_float(logits[target * p.logits_class + n]));
    block.shift[n] = last.shift[n];
    block.total[n] = last.total[n];
    block.target[n] = logit;
    // A tie goes to the lowest class.
    if (logit == last.shift[n] && last.total[n] > A{0}) {
      correct += last.equal[n] == 1 || !row_contains(logits + n, p.logits_class, target, logit);
    }
  }
  sums->nll = block.finish(count);
  sums->correct = correct;
  if (p.grad_logits != nullptr) {
    TileTokens<A> tokens;
    for (int64_t n = 0; n < count || n < width<A>; ++n) {
      const bool unmasked = n < count && p.targets.at(b, begin + n) != p.targets.pad;
      tokens.unmasked[n] = unmasked ? -1 : 0;
      tokens.shift[n] = unmasked ? block.shift[n] : A{0};
      tokens.scale[n] = unmasked ? static_cast<A>(p.row_scale) : A{0};
      tokens.target_logit[n] = unmasked ? block.target[n] : A{0};
    }
    for (int64_t c = 0; c * width<A> < count; ++c) {
      for (int l = 0; l < width<A>; ++l) {
        const int64_t n = column_at<A>(c, count) + l;
        tokens.total[c * width<A> + l] = n < count ? block.total[n] : A{1};
      }
    }
    write_tile_gradient<T, true>(p, logits, b, begin, count, tokens, nullptr);
  }
  for (int64_t n = 0; n < count; ++n) {
    if (p.row_lse.data != nullptr) *token_at<A>(p.row_lse, b, begin + n) = block.lse[n];
    if (p.nll.data != nullptr) *token_at<A>(p.nll, b, begin + n) = block.nll[n];
  }
}

template <class T>
void backward_tile(const VaeLossProblem& p, int64_t b, int64_t begin, int64_t end, accumulate_t<T>* terms) {
  using A = accumulate_t<T>;
  const int64_t count = end - begin;
  const T* logits = static_cast<const T*>(p.logits) + b * p.logits_batch + begin;
  TileTokens<A> tokens;
  for (int64_t n = 0; n < count || n < width<A>; ++n) {
    const int64_t target = n < count ? p.targets.at(b, begin + n) : p.targets.pad;
    const bool unmasked = target != p.targets.pad;
    tokens.unmasked[n] = unmasked ? -1 : 0;
    tokens.shift[n] = unmasked ? *token_at<A>(p.row_lse, b, begin + n) : A{0};
    tokens.scale[n] = !unmasked ? A{0} : p.grad_nll.data != nullptr ? *token_at<A>(p.grad_nll, b, begin + n) : static_cast<A>(p.row_scale);
    tokens.target_logit[n] = unmasked ? static_cast<A>(to_float(logits[target * p.logits_class + n])) : A{0};
  }
  write_tile_gradient<T, false>(p, logits, b, begin, count, tokens, terms);
}

}  // namespace
}  // namespace MOLFUSE_ISA
}  // namespace molfuse
