// SPDX-License-Identifier: Apache-2.0
// One new query of each head against a cache, on a GPU. Every byte of the cache's valid part is read once and used once: a group of lanes
// takes whole rows, 16 bytes a lane, four keys and four values of them on their way at a time. Where heads are too few to fill the device,
// several blocks share a head, and a second kernel merges what they found.
#include <algorithm>

#include "attention/device.h"

namespace molfuse {
namespace attention_device {
namespace {

constexpr int kThreads = 128, kAtOnce = 4;

/// A softmax in progress, in powers of two: largest score and sum. Starts with -infinity and 0.
struct Softmax {
  float largest, total;
};

/// A part of a head's positions: their weighted sum of values, not divided by anything.
struct Parts {
  int32_t count;
  Softmax* softmax;  // [pairs][count]
  float* sums;       // [pairs][count][dim]
};

/// Rows of up to LANES * CHUNKS chunks of 16 bytes.
template <class T, int LANES, int CHUNKS>
struct DecodeRows {
  static constexpr int kLanes = LANES;
  static constexpr int kChunk = 16 / static_cast<int>(sizeof(T));
  static constexpr int kItems = CHUNKS * kChunk;
  static constexpr int kGroups = kThreads / LANES;
  static constexpr int kWidth = LANES * kItems;
  static constexpr size_t kShared = static_cast<size_t>(kGroups) * (kWidth + 2) * sizeof(float);
  using Chunk = Vector<T, kChunk>;
  struct Row {
    Chunk chunk[CHUNKS];
  };

  static MOLFUSE_DEVICE Row fetch(const T* from, int aligned, int dim, int lane) {
    Row row;
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      const int at = (c * LANES + lane) * kChunk;
      if (at < dim && aligned != 0) {
        row.chunk[c] = load(reinterpret_cast<const Chunk*>(from + at));
      } else {
        MOLFUSE_UNROLL
        for (int e = 0; e < kChunk; ++e) row.chunk[c].item[e] = at < dim ? load(from + at + e) : from_float<T>(0.0f);
      }
    }
    return row;
  }
  static MOLFUSE_DEVICE void put(T* to, int aligned, int dim, int lane, const Row& row) {
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      const int at = (c * LANES + lane) * kChunk;
      if (at >= dim) continue;
      if (aligned != 0) {
        store(reinterpret_cast<Chunk*>(to + at), row.chunk[c]);
      } else {
        MOLFUSE_UNROLL
        for (int e = 0; e < kChunk; ++e) store(to + at + e, row.chunk[c].item[e]);
      }
    }
  }
  static MOLFUSE_DEVICE float dot(const Row& a, const Row& b) {
    float sum = 0;
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      MOLFUSE_UNROLL
      for (int e = 0; e < kChunk; ++e) sum = fused_multiply_add(to_float(a.chunk[c].item[e]), to_float(b.chunk[c].item[e]), sum);
    }
    return sum;
  }
};

/// Positions that the query of sequence b sees, the new one among them; a length that the cache has no room for is reported, and none is.
MOLFUSE_DEVICE int visible_of(const Args& args, int b) {
  const bool append = args.key_new.data != nullptr;
  const int64_t length = length_at(args, b);
  if (length >= 0 && length <= args.keys - (append ? 1 : 0)) return static_cast<int>(length) + (append ? 1 : 0);
  if (thread_index() == 0) report_fault(args.report, Fault::lengths, b, length);
  return 0;
}

/// The factor that moves a sum from one largest score to another. While every score is -infinity, it is 0 rather than NaN.
template <class T>
MOLFUSE_DEVICE float factor_between(float from, float to) {
  return power<T>(from - (to == -infinity() ? 0.0f : to));
}

template <class R, class T>
MOLFUSE_KERNEL(kThreads, 4) decode_positions(const Args args, const Parts parts) {
  using Row = typename R::Row;
  float* largest = reinterpret_cast<float*>(shared_memory());
  float* total = largest + R::kGroups;
  float* sums = total + R::kGroups;
  const int pair = block_x() / parts.count, part = block_x() % parts.count;
  const Sequence s{pair / args.heads, pair % args.heads, 1, args.keys, 0, 0, 0};
  const int visible = visible_of(args, s.batch), group = thread_index() / R::kLanes, lane = thread_index() % R::kLanes;
  const int begin = static_cast<int>(static_cast<int64_t>(visible) * part / parts.count);
  const int end = static_cast<int>(static_cast<int64_t>(visible) * (part + 1) / parts.count);
  T* keys = rows_of<T>(args.key, s, 0);
  T* values = rows_of<T>(args.value, s, 0);
  const bool append = args.key_new.data != nullptr;
  const Row query = R::fetch(rows_of<const T>(args.query, s, 0), args.query.aligned, args.dim, lane);
  Softmax softmax{-infinity(), 0};
  float sum[R::kItems] = {};
  // Every group goes as many rounds as the first, as the lanes of a warp shuffle together.
  for (int round = begin; round < end; round += kAtOnce * R::kGroups) {
    Row k[kAtOnce], v[kAtOnce];
    float score[kAtOnce];
    MOLFUSE_UNROLL
    for (int n = 0; n < kAtOnce; ++n) {
      const int j = round + n * R::kGroups + group;
      if (j >= end) {
        k[n] = R::fetch(keys, 0, 0, lane);
        v[n] = k[n];
      } else if (append && j == visible - 1) {
        k[n] = R::fetch(rows_of<const T>(args.key_new, s, 0), args.key_new.aligned, args.dim, lane);
        v[n] = R::fetch(rows_of<const T>(args.value_new, s, 0), args.value_new.aligned, args.dim, lane);
        R::put(keys + j * args.key.row, args.key.aligned, args.dim, lane, k[n]);
        R::put(values + j * args.value.row, args.value.aligned, args.dim, lane, v[n]);
      } else {
        k[n] = R::fetch(keys + j * args.key.row, args.key.aligned, args.dim, lane);
        v[n] = R::fetch(values + j * args.value.row, args.value.aligned, args.dim, lane);
      }
    }
    float most = softmax.largest;
    MOLFUSE_UNROLL
    for (int n = 0; n < kAtOnce; ++n) {
      const int j = round + n * R::kGroups + group;
      score[n] = group_sum<R::kLanes>(R::dot(query, k[n])) * args.score_scale;
      if (j >= end) {
        score[n] = -infinity();
      } else if (args.relative != nullptr) {
        const int distance = visible - 1 - j, column = distance < args.radius ? args.radius - distance : 0;
        score[n] += kScoreUnit<T> * float_at<T>(args.relative, args.relative_narrow, s.head * args.relative_head + column * args.relative_column);
      }
      most = larger(most, score[n]);
    }
    const float factor = factor_between<T>(softmax.largest, most);
    softmax.total *= factor;
    softmax.largest = most;
    MOLFUSE_UNROLL
    for (int e = 0; e < R::kItems; ++e) sum[e] *= factor;
    MOLFUSE_UNROLL
    for (int n = 0; n < kAtOnce; ++n) {
      const float weight = factor_between<T>(score[n], most);
      softmax.total += weight;
      MOLFUSE_UNROLL
      for (int e = 0; e < R::kItems; ++e) sum[e] = fused_multiply_add(weight, to_float(v[n].chunk[e / R::kChunk].item[e % R::kChunk]), sum[e]);
    }
  }
  // Groups are added in their order, by every thread for its columns.
  if (lane == 0) {
    store(largest + group, softmax.largest);
    store(total + group, softmax.total);
  }
  MOLFUSE_UNROLL
  for (int e = 0; e < R::kItems; ++e) {
    store(sums + group * R::kWidth + (e / R::kChunk * R::kLanes + lane) * R::kChunk + e % R::kChunk, sum[e]);
  }
  sync_block();
  Softmax all{-infinity(), 0};
  for (int n = 0; n < R::kGroups; ++n) all.largest = larger(all.largest, load(largest + n));
  for (int n = 0; n < R::kGroups; ++n) all.total = fused_multiply_add(load(total + n), factor_between<T>(load(largest + n), all.largest), all.total);
  for (int d = thread_index(); d < args.dim; d += kThreads) {
    float column = 0;
    for (int n = 0; n < R::kGroups; ++n) {
      column = fused_multiply_add(load(sums + n * R::kWidth + d), factor_between<T>(load(largest + n), all.largest), column);
    }
    if (parts.count > 1) {
      store(parts.sums + static_cast<int64_t>(block_x()) * args.dim + d, column);
    } else {
      store(rows_of<T>(args.out, s, 0) + d, from_float<T>(all.total == 0 ? 0.0f : column / all.total));
    }
  }
  if (parts.count > 1 && thread_index() == 0) store(parts.softmax + block_x(), all);
}

/// Merges the parts of a head, in their order.
template <class T>
MOLFUSE_KERNEL(kThreads, 4) merge_parts(const Args args, const Parts parts) {
  const int pair = block_x();
  const Sequence s{pair / args.heads, pair % args.heads, 1, args.keys, 0, 0, 0};
  const Softmax* softmax = parts.softmax + static_cast<int64_t>(pair) * parts.count;
  const float* sums = parts.sums + static_cast<int64_t>(pair) * parts.count * args.dim;
  float largest = -infinity(), total = 0;
  for (int n = 0; n < parts.count; ++n) largest = larger(largest, load(&softmax[n].largest));
  for (int n = 0; n < parts.count; ++n) {
    total = fused_multiply_add(load(&softmax[n].total), factor_between<T>(load(&softmax[n].largest), largest), total);
  }
  for (int d = thread_index(); d < args.dim; d += kThreads) {
    float column = 0;
    for (int n = 0; n < parts.count; ++n) {
      column = fused_multiply_add(load(sums + static_cast<int64_t>(n) * args.dim + d), factor_between<T>(load(&softmax[n].largest), largest), column);
    }
    store(rows_of<T>(args.out, s, 0) + d, from_float<T>(total == 0 ? 0.0f : column / total));
  }
}

// ---- dispatch

template <class T, int LANES, int CHUNKS>
void launch_decode(Args args, DeviceCall& call) {
  using R = DecodeRows<T, LANES, CHUNKS>;
  const int64_t pairs = static_cast<int64_t>(args.batch) * args.heads;
  // Two blocks a multiprocessor, but at least two rounds of positions in each.
  const int64_t wanted = (int64_t{2} * call.device().multiprocessors + pairs - 1) / pairs, most = args.keys / (2 * kAtOnce * R::kGroups);
  Parts parts{};
  parts.count = static_cast<int32_t>(std::max<int64_t>(1, std::min(wanted, most)));
  if (parts.count > 1) {
    parts.softmax = call.scratch<Softmax>(pairs * parts.count);
    parts.sums = call.scratch<float>(pairs * parts.count * args.dim);
  }
  call.launch("attention decode_positions", decode_positions<R, T>, Grid{pairs * parts.count, 1, 1}, kThreads, R::kShared, args, parts);
  if (parts.count > 1) call.launch("attention merge_parts", merge_parts<T>, Grid{pairs, 1, 1}, kThreads, 0, args, parts);
}

using Launcher = void (*)(Args, DeviceCall&);

/// The table: lanes and chunks a lane, by the bytes of a row.
template <class T>
Launcher launcher_of(int64_t dim) {
  const int64_t bytes = dim * static_cast<int64_t>(sizeof(T));
  if (bytes <= 64) return launch_decode<T, 4, 1>;
  if (bytes <= 128) return launch_decode<T, 8, 1>;
  if (bytes <= 256) return launch_decode<T, 16, 1>;
  // 256 elements of 16 bits are no more than that.
  if constexpr (sizeof(T) == 4) {
    if (bytes > 512) return launch_decode<T, 32, 2>;
  }
  return launch_decode<T, 32, 1>;
}

}  // namespace
}  // namespace attention_device

void attention_decode_device(const AttentionProblem& p, DeviceCall& call) {
  const attention_device::Args args = attention_device::device_args(p, call);
  if (p.batch == 0 || p.heads == 0) return;
  switch (p.dtype) {
    case MOLFUSE_F16: return attention_device::launcher_of<f16>(p.dim)(args, call);
    case MOLFUSE_BF16: return attention_device::launcher_of<bf16>(p.dim)(args, call);
    default: return attention_device::launcher_of<float>(p.dim)(args, call);
  }
}

}  // namespace molfuse
