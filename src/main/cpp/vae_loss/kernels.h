// SPDX-License-Identifier: Apache-2.0
// What the dispatch files of this folder (checks, tasks, reductions) and its cpu_*.cpp files (arithmetic, once per instruction set)
// share.
#pragma once

#include <cstdint>

#include "molfuse/vae_loss.h"
#include "runtime/cpu_level.h"
#include "runtime/philox.h"

namespace molfuse {

/// Values of a [B,T] tensor; data NULL: not wanted.
struct TokenValues {
  void* data;
  int64_t batch, token;  ///< strides
};

/// The targets of a checked call: every entry is pad or in 0..classes-1.
struct TokenTargets {
  const int64_t* data;
  int64_t batch, token;
  int64_t pad;
  MOLFUSE_HOST_DEVICE int64_t at(int64_t b, int64_t t) const { return data[b * batch + t * token]; }
};

/// Sums over one task's tokens. Tasks are cut by shape alone and their sums are added in order, so that results do not depend on
/// the number of threads.
struct TokenSums {
  double nll;
  int64_t correct;
};

// ---- vae_loss

struct VaeLossProblem {
  int32_t dtype;
  int64_t batch, length, classes;
  const void* logits;
  int64_t logits_batch, logits_token, logits_class;
  TokenTargets targets;
  TokenValues row_lse;  ///< written by forward, read by backward
  TokenValues nll;
  void* grad_logits;  ///< of backward; of forward, if not NULL, for row_scale
  int64_t grad_batch, grad_token, grad_class;
  TokenValues grad_nll;  ///< data NULL: row_scale for every token
  double row_scale;
};

// A task is a range of tokens n = b*T + t. Arrays over its tokens, and the part of a row in work, live on the stack in L1.
constexpr int64_t kTaskTokens = 256;
constexpr int64_t kRowChunk = 4096;  ///< longer rows are taken in chunks (online softmax)
// Where classes are not contiguous but tokens are, a task is a tile of kTileTokens x all classes of one sample.
constexpr int64_t kTileTokens = 64;
// Classes whose terms a tile keeps in scratch (kTileTokens of the accumulator type each, in a second-level cache) between the two
// sweeps of backward; with more, they are computed twice.
constexpr int64_t kKeptClasses = 512;

struct VaeLossKernels {
  void (*forward_rows)(const VaeLossProblem&, int64_t begin, int64_t end, TokenSums*);
  void (*backward_rows)(const VaeLossProblem&, int64_t begin, int64_t end);
  /// Tokens begin..end-1 of sample b, at most kTileTokens, with stride 1 in T of logits (and grad_logits).
  void (*forward_tile)(const VaeLossProblem&, int64_t b, int64_t begin, int64_t end, TokenSums*);
  void (*backward_tile)(const VaeLossProblem&, int64_t b, int64_t begin, int64_t end, void* scratch);
  /// to = factor * from, elements of dtype side by side.
  void (*scale)(int32_t dtype, const void* from, void* to, int64_t count, double factor);
};

MOLFUSE_DECLARE_CPU_TABLE(VaeLossKernels, vae_loss_kernels)

// ---- the divergence of the latent distribution, which both losses have

struct LatentMatrix {
  void* data;
  int64_t row, column;
};

struct LatentProblem {
  int32_t dtype;  ///< of mean, log_var and their gradients
  int64_t batch, dim;
  LatentMatrix mean, log_var, grad_mean, grad_log_var;  ///< gradients: data NULL if not wanted
};

struct LatentKernels {
  /// Sum over the columns begin..end-1 of sample b of -1/2 (1 + lv - mean^2 - exp(lv)).
  double (*forward)(const LatentProblem&, int64_t b, int64_t begin, int64_t end);
  void (*backward)(const LatentProblem&, int64_t b, int64_t begin, int64_t end, double scale);
};

MOLFUSE_DECLARE_CPU_TABLE(LatentKernels, latent_kernels)

// ---- linear_vae_loss

struct LinearLossProblem {
  int32_t dtype;
  int64_t length, channels, classes;
  const void* hidden;
  int64_t hidden_batch, hidden_token, hidden_channel;
  const int64_t* rows;  ///< the unmasked tokens b*T + t, which are all that is computed
  int64_t row_count;
  TokenTargets targets;
  TokenValues row_lse, nll;  ///< written by forward; row_lse read by backward
  bool backward;
  void* shift;    ///< of each row, with inverse: exp(logit - shift) * inverse is its probability; NULL: not kept
  void* inverse;
  void* grad_hidden;  ///< NULL: not wanted
  int64_t grad_batch, grad_token, grad_channel;
  TokenValues grad_nll;  ///< data NULL: row_scale for every token
  double row_scale;

  // The weights in the accumulator type: rows of weight_ld elements, of which those beyond channels are 0.
  const void* weight;
  int64_t weight_ld;
  const void* bias;  ///< classes elements, or NULL

  int64_t block;   ///< rows of a block
  int64_t tile;    ///< classes of a tile of logits
  int64_t row_ld;  ///< leading dimension of arrays whose columns are the rows of a block
};

/// Offsets of one thread's scratch, in elements of the accumulator type.
struct LinearLossLayout {
  int64_t hidden, hidden_transposed, logits, grad_hidden, total;
};

MOLFUSE_HOST_DEVICE LinearLossLayout linear_loss_layout(const LinearLossProblem& p) {
  LinearLossLayout layout{};
  layout.hidden = 0;
  layout.hidden_transposed = layout.hidden + p.block * p.weight_ld;
  layout.logits = layout.hidden_transposed + p.weight_ld * p.row_ld;
  layout.grad_hidden = layout.logits + p.tile * p.row_ld;
  layout.total = layout.grad_hidden + p.block * p.weight_ld;
  return layout;
}

/// The largest block, for arrays over its rows on the stack.
constexpr int64_t kLinearBlock = 128;

/// Sums of the weight gradient: classes x weight_ld and classes elements, each NULL if not wanted. first: written, not added to.
struct WeightGradient {
  void* weight;
  void* bias;
  bool first;
};

struct LinearLossKernels {
  /// Classes begin..end-1 of a [K,C] matrix (or its one column, ld = 1) in the accumulator type, columns padded with 0 up to ld.
  void (*pack_weight)(int32_t dtype, const void* from, int64_t row, int64_t column, int64_t channels, int64_t begin, int64_t end,
                      void* to, int64_t ld);
  /// A block of rows begin..end-1 against all classes: losses, and gradients as far as wanted.
  void (*rows)(const LinearLossProblem&, int64_t begin, int64_t end, const WeightGradient&, void* scratch, TokenSums*);
  /// The weight gradient of at most a tile of classes over all rows, after `rows` has kept shift and inverse (or for backward).
  void (*classes)(const LinearLossProblem&, int64_t begin, int64_t end, const WeightGradient&, void* scratch);
};

MOLFUSE_DECLARE_CPU_TABLE(LinearLossKernels, linear_loss_kernels)

}  // namespace molfuse
