// SPDX-License-Identifier: Apache-2.0
// Graph attention on a GPU. A group of LANES neighbouring lanes takes one (node, head): its rows stay in registers, edges are walked two
// at a time, and the softmax is online. Neighbouring groups take neighbouring heads of one node, so that a warp reads whole rows and its
// groups have equally many edges. Nothing is added up by atomics: the transpose of the graph serves the gradients of key and value. Nodes
// with many edges (hubs), which would keep one group busy while the chip waits, are listed by the first kernel and done by whole blocks
// in a second one.
#include <algorithm>
#include <climits>

#include "graph_attention/device.h"
#include "runtime/device_report.h"

namespace molfuse {
namespace {

using namespace device;

constexpr int kThreads = 128;

/// What the kernels see of a call. Strides in elements; indices are int32, or int64 if wide.
struct GraphArgs {
  DeviceOperand query, key, value, out, grad_out, grad_query, grad_key, grad_value;
  const void* row_ptr;  // of the side that is walked: by target, or by source
  const void* other;    // source of each by-target edge; or target of each by-source edge
  const void* edge_id;  // by source only
  int32_t wide;
  int32_t channels, heads;
  int64_t nodes, edges;
  float* lse;
  int64_t lse_node, lse_head;
  float scale, keep_scale;
  uint32_t threshold, offset_low, key_low, key_high;
  float* weight;      // [E,H]
  float* grad_score;  // [E,H]
  int32_t hub_edges;  // rows with more edges are left to the hub kernel
  int32_t* hub_count;
  int32_t* hubs;
  unsigned long long* report;
};

MOLFUSE_DEVICE int64_t index_of(const GraphArgs& args, const void* indices, int64_t n) {
  if (args.wide != 0) return load(static_cast<const int64_t*>(indices) + n);
  return load(static_cast<const int32_t*>(indices) + n);
}

/// Edges begin..end-1 of a node; a wrong pointer is reported and gives none.
struct EdgeRange {
  int64_t begin, end;
};
MOLFUSE_DEVICE EdgeRange edges_of(const GraphArgs& args, int64_t node) {
  EdgeRange range{index_of(args, args.row_ptr, node), index_of(args, args.row_ptr, node + 1)};
  if (range.begin < 0 || range.end < range.begin || range.end > args.edges) {
    const bool first = range.begin < 0 || range.begin > args.edges;
    report_fault(args.report, Fault::row_ptr, node + (first ? 0 : 1), first ? range.begin : range.end);
    return {0, 0};
  }
  return range;
}

/// The node at the other end of edge e; a wrong one is reported, and node 0 taken.
MOLFUSE_DEVICE int64_t neighbour_of(const GraphArgs& args, int64_t e) {
  const int64_t node = index_of(args, args.other, e);
  if (node >= 0 && node < args.nodes) return node;
  report_fault(args.report, Fault::edge_index, e, node);
  return 0;
}
/// The by-target number of the edge at by-source position e.
MOLFUSE_DEVICE int64_t edge_number(const GraphArgs& args, int64_t e) {
  const int64_t edge = index_of(args, args.edge_id, e);
  if (edge >= 0 && edge < args.edges) return edge;
  report_fault(args.report, Fault::edge_index, e, edge);
  return 0;
}

/// 1 / (1 - p) or 0 for edge e and head h.
MOLFUSE_DEVICE float keep_of(const GraphArgs& args, int64_t e, int head) {
  if (args.threshold == 0) return 1.0f;
  const PhiloxWords words = philox(static_cast<uint32_t>(e), static_cast<uint32_t>(static_cast<uint64_t>(e) >> 32),
                                   static_cast<uint32_t>(head / 4), args.offset_low, args.key_low, args.key_high);
  const uint32_t word = head % 4 == 0 ? words.w[0] : head % 4 == 1 ? words.w[1] : head % 4 == 2 ? words.w[2] : words.w[3];
  return word >= args.threshold ? args.keep_scale : 0.0f;
}

/// How a row of channels lies in the registers of a group: chunk c of lane l is the vector c * LANES + l of N channels.
template <class T, int LANES, int N, int CHUNKS>
struct Rows {
  static constexpr int kLanes = LANES;
  static constexpr int kItems = CHUNKS * N;
  /// Threads of a hub kernel's block: as many as there are registers for.
  static constexpr int kHubThreads = kItems >= 16 ? 256 : 512;
  struct Loaded {
    Vector<T, N> chunk[CHUNKS];
  };

  static MOLFUSE_DEVICE Loaded fetch(const GraphArgs& args, const DeviceOperand& operand, int64_t node, int head, int lane) {
    Loaded row;
    const T* base = static_cast<const T*>(operand.data) + node * operand.node + head * operand.head;
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      const int channel = (c * LANES + lane) * N;
      if (channel < args.channels) {
        row.chunk[c] = load(reinterpret_cast<const Vector<T, N>*>(base + (N == 1 ? channel * operand.channel : channel)));
      } else {
        MOLFUSE_UNROLL
        for (int n = 0; n < N; ++n) row.chunk[c].item[n] = from_float<T>(0.0f);
      }
    }
    return row;
  }
  static MOLFUSE_DEVICE void widen(const Loaded& row, float (&to)[kItems]) {
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) to[c * N + n] = to_float(row.chunk[c].item[n]);
    }
  }
  static MOLFUSE_DEVICE float dot(const float (&a)[kItems], const Loaded& b) {
    float sum = 0;
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) sum = fused_multiply_add(a[c * N + n], to_float(b.chunk[c].item[n]), sum);
    }
    return sum;
  }
  static MOLFUSE_DEVICE void add(float (&to)[kItems], float factor, const Loaded& row) {
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) to[c * N + n] = fused_multiply_add(factor, to_float(row.chunk[c].item[n]), to[c * N + n]);
    }
  }
  static MOLFUSE_DEVICE void write(const GraphArgs& args, const DeviceOperand& operand, int64_t node, int head, int lane,
                                   const float (&from)[kItems], float factor) {
    T* base = static_cast<T*>(operand.data) + node * operand.node + head * operand.head;
    MOLFUSE_UNROLL
    for (int c = 0; c < CHUNKS; ++c) {
      const int channel = (c * LANES + lane) * N;
      if (channel >= args.channels) continue;
      Vector<T, N> v;
      MOLFUSE_UNROLL
      for (int n = 0; n < N; ++n) v.item[n] = from_float<T>(from[c * N + n] * factor);
      store(reinterpret_cast<Vector<T, N>*>(base + (N == 1 ? channel * operand.channel : channel)), v);
    }
  }
};

/// A softmax in progress: largest score and sum of exponentials. Starts with -inf and 0.
struct Softmax {
  float largest, total;
};
/// Takes in a score: the factor of what was summed before, and the score's own term.
MOLFUSE_DEVICE float take_in(Softmax& softmax, float score, float* term) {
  const float before = softmax.largest;
  softmax.largest = score > before || is_nan(score) ? score : before;
  // While every score is -inf, shifting by 0 keeps exp at 0 rather than NaN.
  const float shift = softmax.largest == -infinity() ? 0.0f : softmax.largest;
  const float factor = exp(before - shift);
  *term = exp(score - shift);
  softmax.total = fused_multiply_add(softmax.total, factor, *term);
  return factor;
}

/// Edges first, first + step, ... of a node for one head. Every group of the warp runs `rounds` rounds, as lanes shuffle together.
template <class R>
MOLFUSE_DEVICE void attend(const GraphArgs& args, EdgeRange range, int64_t first, int64_t step, int64_t rounds, int head, int lane,
                           const float (&q)[R::kItems], Softmax& softmax, float (&sum)[R::kItems]) {
  for (int64_t round = 0; round < rounds; round += 2) {
    const int64_t e0 = first + round * step, e1 = e0 + step;
    const bool has0 = e0 < range.end, has1 = e1 < range.end;
    typename R::Loaded k0{}, v0{}, k1{}, v1{};
    if (has0) {
      const int64_t s = neighbour_of(args, e0);
      k0 = R::fetch(args, args.key, s, head, lane);
      v0 = R::fetch(args, args.value, s, head, lane);
    }
    if (has1) {
      const int64_t s = neighbour_of(args, e1);
      k1 = R::fetch(args, args.key, s, head, lane);
      v1 = R::fetch(args, args.value, s, head, lane);
    }
    const float score0 = group_sum<R::kLanes>(R::dot(q, k0)), score1 = group_sum<R::kLanes>(R::dot(q, k1));
    if (has0) {
      float term;
      const float factor = take_in(softmax, score0 * args.scale, &term);
      MOLFUSE_UNROLL
      for (int n = 0; n < R::kItems; ++n) sum[n] *= factor;
      R::add(sum, term * keep_of(args, e0, head), v0);
    }
    if (has1) {
      float term;
      const float factor = take_in(softmax, score1 * args.scale, &term);
      MOLFUSE_UNROLL
      for (int n = 0; n < R::kItems; ++n) sum[n] *= factor;
      R::add(sum, term * keep_of(args, e1, head), v1);
    }
  }
}

template <class R>
MOLFUSE_DEVICE void write_attention(const GraphArgs& args, int64_t node, int head, int lane, const Softmax& softmax,
                                    const float (&sum)[R::kItems]) {
  const bool nothing = softmax.total == 0;
  R::write(args, args.out, node, head, lane, sum, nothing ? 0.0f : 1.0f / softmax.total);
  if (args.lse != nullptr && lane == 0) {
    store(args.lse + node * args.lse_node + head * args.lse_head, nothing ? -infinity() : softmax.largest + log(softmax.total));
  }
}

/// The largest of an integer over the warp.
MOLFUSE_DEVICE int warp_largest(int value) {
  MOLFUSE_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const int other = shuffle_xor(value, step);
    value = other > value ? other : value;
  }
  return value;
}

/// What a group works on: (node, head), and its edges. The groups of a warp take part in every shuffle, those without work too.
struct GroupWork {
  bool active;
  int64_t node;
  int head;
  EdgeRange range;
  int rounds;  // of the warp: the most edges any of its groups has
};
template <class R>
MOLFUSE_DEVICE GroupWork group_work(const GraphArgs& args, bool list_hubs) {
  GroupWork work{};
  const int64_t group = (static_cast<int64_t>(block_x()) * kThreads + thread_index()) / R::kLanes;
  work.active = group < args.nodes * args.heads;
  int degree = 0;
  if (work.active) {
    work.node = group / args.heads;
    work.head = static_cast<int>(group % args.heads);
    work.range = edges_of(args, work.node);
    const int64_t count = work.range.end - work.range.begin;
    if (count > args.hub_edges) {
      if (list_hubs && work.head == 0 && lane_index() % R::kLanes == 0) store(args.hubs + atomic_add(args.hub_count, 1), static_cast<int32_t>(work.node));
      work.active = false;
      work.range = {0, 0};
    } else {
      degree = static_cast<int>(count);
    }
  }
  work.rounds = warp_largest(degree);
  return work;
}

template <class R>
MOLFUSE_KERNEL(kThreads, 2) attention_forward(const GraphArgs args) {
  const GroupWork work = group_work<R>(args, true);
  const int lane = lane_index() % R::kLanes;
  float q[R::kItems] = {}, sum[R::kItems] = {};
  if (work.active) R::widen(R::fetch(args, args.query, work.node, work.head, lane), q);
  Softmax softmax{-infinity(), 0.0f};
  attend<R>(args, work.range, work.range.begin, 1, work.rounds, work.head, lane, q, softmax, sum);
  if (work.active) write_attention<R>(args, work.node, work.head, lane, softmax, sum);
}

/// Shared memory of a hub kernel: one row of sums for each group, and two numbers.
template <class R>
constexpr size_t hub_shared() {
  return static_cast<size_t>(R::kHubThreads / R::kLanes) * static_cast<size_t>(R::kLanes * R::kItems + 2) * sizeof(float);
}

/// Adds the groups' rows in order: thread i of the block takes elements i, i + threads, ... and the first group's row becomes the sum.
template <class R>
MOLFUSE_DEVICE void add_rows_of_groups(float* rows, const float* factors) {
  constexpr int kGroups = R::kHubThreads / R::kLanes, kLength = R::kLanes * R::kItems;
  for (int i = thread_index(); i < kLength; i += R::kHubThreads) {
    float sum = 0;
    for (int g = 0; g < kGroups; ++g) {
      const float value = load(rows + g * kLength + i);
      sum = factors == nullptr ? sum + value : fused_multiply_add(load(factors + g), value, sum);
    }
    store(rows + i, sum);
  }
}

template <class R>
MOLFUSE_DEVICE void put_row(float* rows, int group, int lane, const float (&values)[R::kItems]) {
  MOLFUSE_UNROLL
  for (int n = 0; n < R::kItems; ++n) store(rows + (group * R::kItems + n) * R::kLanes + lane, values[n]);
}
template <class R>
MOLFUSE_DEVICE void get_row(const float* rows, int lane, float (&values)[R::kItems]) {
  MOLFUSE_UNROLL
  for (int n = 0; n < R::kItems; ++n) values[n] = load(rows + n * R::kLanes + lane);
}

/// A block takes one (hub, head) after the other; its groups share the edges.
template <class R>
MOLFUSE_KERNEL(R::kHubThreads, 1) hub_forward(const GraphArgs args) {
  constexpr int kGroups = R::kHubThreads / R::kLanes;
  float* rows = reinterpret_cast<float*>(shared_memory());
  float* largest = rows + kGroups * R::kLanes * R::kItems;
  float* total = largest + kGroups;
  const int group = thread_index() / R::kLanes, lane = lane_index() % R::kLanes;
  const int items = load(args.hub_count) * args.heads;
  for (int item = block_x(); item < items; item += grid_x()) {
    const int64_t node = load(args.hubs + item / args.heads);
    const int head = item % args.heads;
    const EdgeRange range = edges_of(args, node);
    const int64_t rounds = (range.end - range.begin + kGroups - 1) / kGroups;
    float q[R::kItems], sum[R::kItems] = {};
    R::widen(R::fetch(args, args.query, node, head, lane), q);
    Softmax softmax{-infinity(), 0.0f};
    attend<R>(args, range, range.begin + group, kGroups, rounds, head, lane, q, softmax, sum);
    put_row<R>(rows, group, lane, sum);
    if (lane == 0) {
      store(largest + group, softmax.largest);
      store(total + group, softmax.total);
    }
    sync_block();
    // Every thread finds the same maximum and sum; the factors take the totals' place.
    Softmax all{-infinity(), 0.0f};
    for (int g = 0; g < kGroups; ++g) {
      const float other = load(largest + g);
      all.largest = other > all.largest || is_nan(other) ? other : all.largest;
    }
    const float shift = all.largest == -infinity() ? 0.0f : all.largest;
    for (int g = 0; g < kGroups; ++g) all.total = fused_multiply_add(load(total + g), exp(load(largest + g) - shift), all.total);
    sync_block();
    if (thread_index() < kGroups) store(total + thread_index(), exp(load(largest + thread_index()) - shift));
    sync_block();
    add_rows_of_groups<R>(rows, total);
    sync_block();
    if (group == 0) {
      get_row<R>(rows, lane, sum);
      write_attention<R>(args, node, head, lane, all, sum);
    }
    sync_block();
  }
}

/// First sweep over a node's edges: writes weight = exp(score - lse) and grad_score = keep * (grad_out . value) of each, and returns the
/// sums of weight and of weight * grad_score. The former is one but for the rounding of lse, which is divided out in the second sweep.
struct Sums {
  float mass, delta;
};
template <class R>
MOLFUSE_DEVICE Sums weigh(const GraphArgs& args, EdgeRange range, int64_t first, int64_t step, int64_t rounds, int head, int lane,
                          const float (&q)[R::kItems], const float (&go)[R::kItems], float lse) {
  Sums sums{0, 0};
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t e = first + round * step;
    const bool has = e < range.end;
    typename R::Loaded k{}, v{};
    if (has) {
      const int64_t s = neighbour_of(args, e);
      k = R::fetch(args, args.key, s, head, lane);
      v = R::fetch(args, args.value, s, head, lane);
    }
    const float score = group_sum<R::kLanes>(R::dot(q, k)) * args.scale, slope = group_sum<R::kLanes>(R::dot(go, v));
    if (!has) continue;
    const float weight = lse == -infinity() ? 0.0f : exp(score - lse), gradient = slope * keep_of(args, e, head);
    sums.mass += weight;
    sums.delta = fused_multiply_add(weight, gradient, sums.delta);
    if (lane == 0) {
      store(args.weight + e * args.heads + head, weight);
      store(args.grad_score + e * args.heads + head, gradient);
    }
  }
  return sums;
}

/// Second sweep: finishes weight (after dropout) and grad_score (times scale), and adds up the gradient of query.
template <class R>
MOLFUSE_DEVICE void slope(const GraphArgs& args, EdgeRange range, int64_t first, int64_t step, int64_t rounds, int head, int lane, Sums sums,
                          float (&sum)[R::kItems]) {
  const float share = sums.mass == 0 ? 0.0f : 1.0f / sums.mass, mean = sums.delta * share;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t e = first + round * step;
    const bool has = e < range.end;
    float weight = 0, gradient = 0;
    if (has) {
      weight = load(args.weight + e * args.heads + head) * share;
      gradient = weight * (load(args.grad_score + e * args.heads + head) - mean) * args.scale;
      if (args.grad_query.data != nullptr) R::add(sum, gradient, R::fetch(args, args.key, neighbour_of(args, e), head, lane));
    }
    // All lanes have read before one of them writes.
    sync_warp();
    if (has && lane == 0) {
      store(args.weight + e * args.heads + head, weight * keep_of(args, e, head));
      store(args.grad_score + e * args.heads + head, gradient);
    }
  }
}

template <class R>
MOLFUSE_KERNEL(kThreads, 2) backward_targets(const GraphArgs args) {
  const GroupWork work = group_work<R>(args, true);
  const int lane = lane_index() % R::kLanes;
  float q[R::kItems] = {}, go[R::kItems] = {}, sum[R::kItems] = {};
  float lse = -infinity();
  if (work.active) {
    R::widen(R::fetch(args, args.query, work.node, work.head, lane), q);
    R::widen(R::fetch(args, args.grad_out, work.node, work.head, lane), go);
    lse = load(args.lse + work.node * args.lse_node + work.head * args.lse_head);
  }
  const Sums sums = weigh<R>(args, work.range, work.range.begin, 1, work.rounds, work.head, lane, q, go, lse);
  sync_warp();
  slope<R>(args, work.range, work.range.begin, 1, work.rounds, work.head, lane, sums, sum);
  if (work.active && args.grad_query.data != nullptr) R::write(args, args.grad_query, work.node, work.head, lane, sum, 1.0f);
}

template <class R>
MOLFUSE_KERNEL(R::kHubThreads, 1) hub_targets(const GraphArgs args) {
  constexpr int kGroups = R::kHubThreads / R::kLanes;
  float* rows = reinterpret_cast<float*>(shared_memory());
  float* mass = rows + kGroups * R::kLanes * R::kItems;
  float* delta = mass + kGroups;
  const int group = thread_index() / R::kLanes, lane = lane_index() % R::kLanes;
  const int items = load(args.hub_count) * args.heads;
  for (int item = block_x(); item < items; item += grid_x()) {
    const int64_t node = load(args.hubs + item / args.heads);
    const int head = item % args.heads;
    const EdgeRange range = edges_of(args, node);
    const int64_t rounds = (range.end - range.begin + kGroups - 1) / kGroups;
    float q[R::kItems], go[R::kItems], sum[R::kItems] = {};
    R::widen(R::fetch(args, args.query, node, head, lane), q);
    R::widen(R::fetch(args, args.grad_out, node, head, lane), go);
    const float lse = load(args.lse + node * args.lse_node + head * args.lse_head);
    const Sums own = weigh<R>(args, range, range.begin + group, kGroups, rounds, head, lane, q, go, lse);
    if (lane == 0) {
      store(mass + group, own.mass);
      store(delta + group, own.delta);
    }
    sync_block();
    Sums all{0, 0};
    for (int g = 0; g < kGroups; ++g) {
      all.mass += load(mass + g);
      all.delta += load(delta + g);
    }
    slope<R>(args, range, range.begin + group, kGroups, rounds, head, lane, all, sum);
    put_row<R>(rows, group, lane, sum);
    sync_block();
    add_rows_of_groups<R>(rows, nullptr);
    sync_block();
    if (group == 0 && args.grad_query.data != nullptr) {
      get_row<R>(rows, lane, sum);
      R::write(args, args.grad_query, node, head, lane, sum, 1.0f);
    }
    sync_block();
  }
}

/// Adds weight * grad_out and grad_score * query over edges of a source. Lanes need nothing of each other.
template <class R>
MOLFUSE_DEVICE void gather(const GraphArgs& args, EdgeRange range, int64_t first, int64_t step, int head, int lane, float (&key)[R::kItems],
                           float (&value)[R::kItems]) {
  for (int64_t p = first; p < range.end; p += step) {
    const int64_t t = neighbour_of(args, p), e = edge_number(args, p) * args.heads + head;
    if (args.grad_key.data != nullptr) R::add(key, load(args.grad_score + e), R::fetch(args, args.query, t, head, lane));
    if (args.grad_value.data != nullptr) R::add(value, load(args.weight + e), R::fetch(args, args.grad_out, t, head, lane));
  }
}

template <class R>
MOLFUSE_DEVICE void write_gathered(const GraphArgs& args, int64_t node, int head, int lane, const float (&key)[R::kItems],
                                   const float (&value)[R::kItems]) {
  if (args.grad_key.data != nullptr) R::write(args, args.grad_key, node, head, lane, key, 1.0f);
  if (args.grad_value.data != nullptr) R::write(args, args.grad_value, node, head, lane, value, 1.0f);
}

template <class R>
MOLFUSE_KERNEL(kThreads, 2) backward_sources(const GraphArgs args) {
  const GroupWork work = group_work<R>(args, true);
  const int lane = lane_index() % R::kLanes;
  if (!work.active) return;
  float key[R::kItems] = {}, value[R::kItems] = {};
  gather<R>(args, work.range, work.range.begin, 1, work.head, lane, key, value);
  write_gathered<R>(args, work.node, work.head, lane, key, value);
}

template <class R>
MOLFUSE_KERNEL(R::kHubThreads, 1) hub_sources(const GraphArgs args) {
  constexpr int kGroups = R::kHubThreads / R::kLanes;
  float* rows = reinterpret_cast<float*>(shared_memory());
  const int group = thread_index() / R::kLanes, lane = lane_index() % R::kLanes;
  const int items = load(args.hub_count) * args.heads;
  for (int item = block_x(); item < items; item += grid_x()) {
    const int64_t node = load(args.hubs + item / args.heads);
    const int head = item % args.heads;
    const EdgeRange range = edges_of(args, node);
    float key[R::kItems] = {}, value[R::kItems] = {};
    gather<R>(args, range, range.begin + group, kGroups, head, lane, key, value);
    put_row<R>(rows, group, lane, key);
    sync_block();
    add_rows_of_groups<R>(rows, nullptr);
    sync_block();
    if (group == 0) get_row<R>(rows, lane, key);
    sync_block();
    put_row<R>(rows, group, lane, value);
    sync_block();
    add_rows_of_groups<R>(rows, nullptr);
    sync_block();
    if (group == 0) {
      get_row<R>(rows, lane, value);
      write_gathered<R>(args, node, head, lane, key, value);
    }
    sync_block();
  }
}

// ---- dispatch

enum class Pass { forward, targets, sources };

template <class R>
void launch_pass(const GraphArgs& args, DeviceCall& call, Pass pass, bool may_have_hubs) {
  const int64_t groups = args.nodes * args.heads, per_block = kThreads / R::kLanes;
  const Grid grid{(groups + per_block - 1) / per_block, 1, 1}, hub_grid{int64_t{2} * call.device().multiprocessors, 1, 1};
  if (may_have_hubs) call.zero(args.hub_count, sizeof(int32_t));
  switch (pass) {
    case Pass::forward:
      call.launch("graph_attention forward", attention_forward<R>, grid, kThreads, 0, args);
      if (may_have_hubs) call.launch("graph_attention hub_forward", hub_forward<R>, hub_grid, R::kHubThreads, hub_shared<R>(), args);
      break;
    case Pass::targets:
      call.launch("graph_attention backward_targets", backward_targets<R>, grid, kThreads, 0, args);
      if (may_have_hubs) call.launch("graph_attention hub_targets", hub_targets<R>, hub_grid, R::kHubThreads, hub_shared<R>(), args);
      break;
    case Pass::sources:
      call.launch("graph_attention backward_sources", backward_sources<R>, grid, kThreads, 0, args);
      if (may_have_hubs) call.launch("graph_attention hub_sources", hub_sources<R>, hub_grid, R::kHubThreads, hub_shared<R>(), args);
      break;
  }
}

using Launcher = void (*)(const GraphArgs&, DeviceCall&, Pass, bool);

/// The table: by type and by how many vectors a row has. Vectors of 16 bytes; single elements where rows are not aligned for that.
template <class T>
Launcher launcher_of(int64_t channels, bool wide) {
  constexpr int kWide = 16 / static_cast<int>(sizeof(T));
  if (wide) {
    const int64_t vectors = channels / kWide;
    if (vectors <= 8) return launch_pass<Rows<T, 8, kWide, 1>>;
    if (vectors <= 32) return launch_pass<Rows<T, 32, kWide, 1>>;
    if (vectors <= 64) return launch_pass<Rows<T, 32, kWide, 2>>;
    if (vectors <= 128) return launch_pass<Rows<T, 32, kWide, 4>>;
    return nullptr;
  }
  if (channels <= 32) return launch_pass<Rows<T, 32, 1, 1>>;
  if (channels <= 256) return launch_pass<Rows<T, 32, 1, 8>>;
  return nullptr;
}

Launcher find_launcher(int32_t dtype, int64_t channels, bool wide) {
  switch (dtype) {
    case MOLFUSE_F32: return launcher_of<float>(channels, wide);
    case MOLFUSE_F16: return launcher_of<f16>(channels, wide);
    case MOLFUSE_BF16: return launcher_of<bf16>(channels, wide);
    default: unsupported("graph_attention: f64 is for the CPU only");
  }
}

}  // namespace

void graph_attention_device(const DeviceGraphProblem& p, bool backward, DeviceCall& call) {
  GraphArgs args{};
  args.query = p.query;
  args.key = p.key;
  args.value = p.value;
  args.out = p.out;
  args.grad_out = p.grad_out;
  args.grad_query = p.grad_query;
  args.grad_key = p.grad_key;
  args.grad_value = p.grad_value;
  args.wide = p.wide_index;
  args.channels = static_cast<int32_t>(p.channels);
  args.heads = static_cast<int32_t>(p.heads);
  args.nodes = p.nodes;
  args.edges = p.edges;
  args.lse = static_cast<float*>(p.lse);
  args.lse_node = p.lse_node;
  args.lse_head = p.lse_head;
  args.scale = static_cast<float>(p.scale);
  args.keep_scale = static_cast<float>(p.keep_scale);
  args.threshold = p.threshold;
  args.offset_low = p.offset_low;
  args.key_low = static_cast<uint32_t>(p.philox_key);
  args.key_high = static_cast<uint32_t>(p.philox_key >> 32);
  args.report = call.report();

  const int64_t vector = 16 / static_cast<int64_t>(molfuse_dtype_size(p.dtype));
  bool wide = p.channels % vector == 0;
  for (const DeviceOperand* operand : {&p.query, &p.key, &p.value, &p.out, &p.grad_out, &p.grad_query, &p.grad_key, &p.grad_value}) {
    wide = wide && (operand->data == nullptr || (operand->channel == 1 && operand->node % vector == 0 && operand->head % vector == 0 &&
                                                 reinterpret_cast<uintptr_t>(operand->data) % 16 == 0));
  }
  const Launcher launch = find_launcher(p.dtype, p.channels, wide);
  if (launch == nullptr) {
    unsupported("graph_attention: at most %lld channels on a device%s, got %lld", static_cast<long long>(wide ? 128 * vector : 256),
                wide ? "" : " for rows that are not side by side and aligned to 16 bytes", static_cast<long long>(p.channels));
  }
  // A hub has more edges than this; a graph with no more edges in all has none.
  const int64_t hub_edges = hub_edges_of_device();
  const bool may_have_hubs = p.edges > hub_edges;
  args.hub_edges = may_have_hubs ? static_cast<int32_t>(hub_edges) : INT32_MAX;
  if (may_have_hubs) {
    args.hub_count = call.scratch<int32_t>(1);
    args.hubs = call.scratch<int32_t>(p.edges / hub_edges + 1);
  }
  args.row_ptr = p.row_ptr;
  args.other = p.source;
  if (!backward) return launch(args, call, Pass::forward, may_have_hubs);
  args.weight = call.scratch<float>(p.edges * p.heads);
  args.grad_score = call.scratch<float>(p.edges * p.heads);
  launch(args, call, Pass::targets, may_have_hubs);
  if (p.grad_key.data == nullptr && p.grad_value.data == nullptr) return;
  args.row_ptr = p.row_ptr_t;
  args.other = p.target;
  args.edge_id = p.edge_id;
  launch(args, call, Pass::sources, may_have_hubs);
}

}  // namespace molfuse
