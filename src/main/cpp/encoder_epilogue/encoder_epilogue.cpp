// SPDX-License-Identifier: Apache-2.0
// C entry points of encoder_epilogue: argument checks and the passes of a call. The arithmetic is in cpu_encoder_epilogue.cpp.
#include "molfuse/encoder_epilogue.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "encoder_epilogue/kernels.h"
#include "runtime/check.h"
#include "runtime/device_call.h"
#include "runtime/parallel.h"

namespace molfuse {
namespace {

// Rows are divided into so many parts at most, whatever the number of threads: sums do not depend on it.
constexpr int64_t kParts = 64;
constexpr int64_t kFewestRows = 16;
constexpr int64_t kFewestColumns = 64;
// Rows between adding a residual and reading the sum again: they stay in the second-level cache.
constexpr int64_t kRowsInCache = 8;

EpilogueRows rows_of(const char* name, const molfuse_tensor& tensor, int32_t dtype, int64_t rows, int64_t columns, bool output) {
  check_dtype(name, tensor, {dtype});
  check_shape(name, tensor, {rows, columns});
  if (output) check_output(name, tensor);
  if (element_count(tensor) > 0 && tensor.size[1] > 1 && tensor.stride[1] != 1) {
    unsupported("%s: expected columns side by side (stride 1), got stride %lld", name, static_cast<long long>(tensor.stride[1]));
  }
  return {tensor.data, tensor.stride[0]};
}

EpilogueColumns columns_of(const char* name, const molfuse_tensor& tensor, std::initializer_list<int32_t> dtypes, int64_t columns, bool output) {
  check_dtype(name, tensor, dtypes);
  check_shape(name, tensor, {columns});
  if (output) check_output(name, tensor);
  return {tensor.data, tensor.stride[0], tensor.dtype};
}

/// A slot of columns of a wider row.
EpilogueRows slot_of(const char* name, const molfuse_tensor& tensor, const molfuse_encoder_epilogue_args& args, const EpilogueProblem& p,
                     bool output) {
  EpilogueRows rows = rows_of(name, tensor, p.dtype, p.graphs, kAny, output);
  if (args.column_offset < 0 || args.column_offset > tensor.size[1] || tensor.size[1] - args.column_offset < p.columns) {
    invalid("column_offset: expected a slot of %lld columns inside %s %s, got it at %lld", static_cast<long long>(p.columns), name,
            shape_text(tensor).c_str(), static_cast<long long>(args.column_offset));
  }
  rows.data = static_cast<char*>(rows.data) + args.column_offset * static_cast<int64_t>(molfuse_dtype_size(p.dtype));
  return rows;
}

EpilogueProblem check_problem(const molfuse_encoder_epilogue_args& args, bool backward, bool on_device) {
  EpilogueProblem p{};
  p.dtype = args.input.dtype;
  if (!is_float(p.dtype)) invalid("input: expected element type f16, bf16, f32 or f64, got %s", molfuse_dtype_name(p.dtype));
  if (args.input.ndim != 2) invalid("input: expected [V,C], got %s", shape_text(args.input).c_str());
  const int64_t V = p.nodes = args.input.size[0], C = p.columns = args.input.size[1];
  const int32_t wide = accumulate_dtype(p.dtype);
  p.input = rows_of("input", args.input, p.dtype, V, C, false);
  if (present(args.weight)) p.weight = columns_of("weight", args.weight, {p.dtype, wide}, C, false);
  if (present(args.bias)) p.bias = columns_of("bias", args.bias, {p.dtype, wide}, C, false);
  p.save_mean = columns_of("save_mean", args.save_mean, {wide}, C, !backward);
  p.save_rstd = columns_of("save_rstd", args.save_rstd, {wide}, C, !backward);
  p.training = args.training != 0;
  if (p.training && V == 1) invalid("input: expected at least two rows in training, which alone have a variance, got %s", shape_text(args.input).c_str());
  check_probability("dropout_p", args.dropout_p);
  if (args.dropout_p > 0) {
    p.threshold = static_cast<uint32_t>(std::min(65535.0, std::max(1.0, std::floor(args.dropout_p * 65536.0 + 0.5))));
    p.keep_scale = 65536.0 / (65536.0 - p.threshold);
  }
  p.philox = args.philox;
  if (present(args.graph_ptr)) {
    check_dtype("graph_ptr", args.graph_ptr, {MOLFUSE_I32, MOLFUSE_I64});
    check_shape("graph_ptr", args.graph_ptr, {kAny});
    if (args.graph_ptr.size[0] < 1) invalid("graph_ptr: expected at least one entry, got %s", shape_text(args.graph_ptr).c_str());
    p.graph_ptr = args.graph_ptr;
    p.graphs = args.graph_ptr.size[0] - 1;
    if (p.graphs == 0 && V > 0) invalid("graph_ptr: expected the graphs of %lld nodes, got none", static_cast<long long>(V));
  }
  if (backward) {
    if (present(args.grad_out)) p.grad_out = rows_of("grad_out", args.grad_out, p.dtype, V, C, false);
    if (present(args.grad_pooled)) {
      if (!present(p.graph_ptr)) invalid("graph_ptr: expected with grad_pooled, got none");
      p.grad_pooled = slot_of("grad_pooled", args.grad_pooled, args, p, false);
    }
    if (!present(args.grad_out) && !present(args.grad_pooled)) invalid("grad_out: expected it or grad_pooled, got neither");
    if (present(args.grad_input)) p.grad_input = rows_of("grad_input", args.grad_input, p.dtype, V, C, true);
    if (present(args.grad_weight)) p.grad_weight = columns_of("grad_weight", args.grad_weight, {wide}, C, true);
    if (present(args.grad_bias)) p.grad_bias = columns_of("grad_bias", args.grad_bias, {wide}, C, true);
    check_apart({{"grad_input", args.grad_input}, {"grad_weight", args.grad_weight}, {"grad_bias", args.grad_bias}}, {{"graph_ptr", args.graph_ptr}});
    if (present(args.graph_ptr) && !on_device) check_pointers("graph_ptr", args.graph_ptr, V);
    return p;
  }
  if (present(args.residual)) {
    p.residual = rows_of("residual", args.residual, p.dtype, V, C, false);
    p.sum = rows_of("sum", args.sum, p.dtype, V, C, true);
  }
  if (present(args.running_mean) != present(args.running_var)) invalid("running_mean: expected with running_var, got one of them");
  if (present(args.running_mean)) {
    p.running_mean = columns_of("running_mean", args.running_mean, {wide}, C, p.training);
    p.running_var = columns_of("running_var", args.running_var, {wide}, C, p.training);
  } else if (!p.training) {
    invalid("running_mean: expected outside training, got none");
  }
  if (!(args.momentum >= 0 && args.momentum <= 1)) invalid("momentum: expected a number in [0,1], got %g", args.momentum);
  if (!(args.epsilon >= 0)) invalid("epsilon: expected a number >= 0, got %g", args.epsilon);
  check_finite("epsilon", args.epsilon, p.dtype);
  p.momentum = args.momentum;
  p.epsilon = args.epsilon;
  p.out = rows_of("out", args.out, p.dtype, V, C, true);
  if (present(p.graph_ptr)) p.pooled = slot_of("pooled", args.pooled, args, p, true);
  check_apart({{"out", args.out}, {"pooled", args.pooled}, {"save_mean", args.save_mean}, {"save_rstd", args.save_rstd}}, {{"graph_ptr", args.graph_ptr}});
  if (present(args.residual)) check_apart({{"sum", args.sum}}, {{"graph_ptr", args.graph_ptr}});
  if (p.training) check_apart({{"running_mean", args.running_mean}, {"running_var", args.running_var}}, {{"graph_ptr", args.graph_ptr}});
  // Values come last: nobody shall walk through more of them than there are rows for.
  if (present(args.graph_ptr) && !on_device) check_pointers("graph_ptr", args.graph_ptr, V);
  return p;
}

/// The passes over the features, with arrays of accumulators A.
template <class A>
class Passes {
 public:
  Passes(const EpilogueProblem& problem, const molfuse_execution& execution)
      : p_(problem),
        kernels_(select_encoder_epilogue_kernels().of[problem.dtype]),
        parts_(std::max<int64_t>(1, std::min(kParts, p_.nodes / kFewestRows))),
        mean_(size()),
        scale_(size()),
        shift_(size()),
        rstd_(size()) {
    // Memory is the bound, unless random numbers are drawn: a nanosecond an element or so.
    const double bytes = static_cast<double>(p_.nodes) * static_cast<double>(p_.columns) * static_cast<double>(molfuse_dtype_size(p_.dtype));
    threads_ = thread_count(with_worthwhile_threads(execution, bytes / 5), INT64_MAX);
  }

  void forward() {
    if (p_.training) {
      if (p_.nodes > 0) measure();
    } else {
      std::vector<A> variance(size());
      kernels_.load_columns(p_.running_mean, p_.columns, 1, mean_.data());
      kernels_.load_columns(p_.running_var, p_.columns, 1, variance.data());
      for (size_t c = 0; c < size(); ++c) rstd_[c] = A{1} / std::sqrt(variance[c] + static_cast<A>(p_.epsilon));
    }
    kernels_.store_columns(p_.save_mean, p_.columns, 1, mean_.data());
    kernels_.store_columns(p_.save_rstd, p_.columns, 1, rstd_.data());
    prepare();
    if (p_.pooled.data != nullptr) {
      apply_by_graph();
    } else {
      by_parts([&](EpilogueBlock& block, int64_t) { apply(block); });
    }
  }

  void backward() {
    kernels_.load_columns(p_.save_mean, p_.columns, 1, mean_.data());
    kernels_.load_columns(p_.save_rstd, p_.columns, 1, rstd_.data());
    prepare();
    std::vector<A> sum_bias(size()), sum_weight(size());
    const bool sums = p_.training || p_.grad_weight.data != nullptr || p_.grad_bias.data != nullptr;
    if (sums) add_gradients(sum_bias, sum_weight);
    if (p_.grad_bias.data != nullptr) kernels_.store_columns(p_.grad_bias, p_.columns, 1, sum_bias.data());
    if (p_.grad_weight.data != nullptr) kernels_.store_columns(p_.grad_weight, p_.columns, 1, sum_weight.data());
    if (p_.grad_input.data == nullptr) return;
    for (A& sum : sum_bias) sum /= static_cast<A>(std::max<int64_t>(1, p_.nodes));
    for (A& sum : sum_weight) sum /= static_cast<A>(std::max<int64_t>(1, p_.nodes));
    by_parts([&](EpilogueBlock& block, int64_t) {
      block.sum_bias = sum_bias.data();
      block.sum_weight = sum_weight.data();
      by_graph(block, [&](const EpilogueBlock& rows) { kernels_.gradient(p_, rows); });
    });
  }

 private:
  size_t size() const { return static_cast<size_t>(p_.columns); }

  EpilogueBlock block_of(int64_t row_begin, int64_t row_end, int64_t column_begin, int64_t column_end) const {
    EpilogueBlock block{};
    block.row_begin = row_begin;
    block.row_end = row_end;
    block.column_begin = column_begin;
    block.column_end = column_end;
    block.mean = mean_.data() + column_begin;
    block.scale = scale_.data() + column_begin;
    block.shift = shift_.data() + column_begin;
    block.rstd = rstd_.data() + column_begin;
    return block;
  }

  /// Calls body(block, part) for every part of the rows.
  template <class Body>
  void by_parts(Body&& body) const {
    if (p_.nodes == 0 || p_.columns == 0) return;
    const int threads = static_cast<int>(std::min<int64_t>(threads_, parts_));
    const size_t pooled = p_.grad_pooled.data != nullptr ? align_up(size() * sizeof(A)) : 0;
    const size_t each = align_up(static_cast<size_t>(epilogue_scratch(p_.columns))) + pooled;
    const Scratch scratch(each * static_cast<size_t>(threads));
    parallel_tasks(threads, parts_, 1, [&](int64_t part, int thread) {
      EpilogueBlock block = block_of(begin_of(part), begin_of(part + 1), 0, p_.columns);
      block.grad_pooled = pooled != 0 ? scratch.at<A>(each * static_cast<size_t>(thread)) : nullptr;
      block.scratch = scratch.at<void>(each * static_cast<size_t>(thread) + pooled);
      body(block, part);
    });
  }
  int64_t begin_of(int64_t part) const { return p_.nodes / parts_ * part + std::min(part, p_.nodes % parts_); }

  /// Mean, rstd and the running statistics.
  void measure() {
    std::vector<A> part_mean(static_cast<size_t>(parts_) * size()), part_m2(part_mean.size());
    by_parts([&](EpilogueBlock& block, int64_t part) {
      const size_t at = static_cast<size_t>(part) * size();
      kernels_.statistics(p_, block, part_mean.data() + at, part_m2.data() + at);
    });
    std::vector<A> variance(size());
    for (size_t c = 0; c < size(); ++c) {
      double mean = 0, m2 = 0;
      for (int64_t part = 0; part < parts_; ++part) {
        const size_t at = static_cast<size_t>(part) * size() + c;
        const double before = static_cast<double>(begin_of(part)), after = static_cast<double>(begin_of(part + 1));
        const double distance = static_cast<double>(part_mean[at]) - mean, share = (after - before) / after;
        mean += distance * share;
        m2 += static_cast<double>(part_m2[at]) + distance * distance * before * share;
      }
      mean_[c] = static_cast<A>(mean);
      rstd_[c] = static_cast<A>(1 / std::sqrt(m2 / static_cast<double>(p_.nodes) + p_.epsilon));
      variance[c] = static_cast<A>(m2 / static_cast<double>(p_.nodes - 1));
    }
    if (p_.running_mean.data == nullptr) return;
    const auto update = [&](const EpilogueColumns& running, const std::vector<A>& value) {
      A* const to = static_cast<A*>(running.data);
      for (size_t c = 0; c < size(); ++c) {
        A& old = to[static_cast<int64_t>(c) * running.step];
        old = static_cast<A>(1 - p_.momentum) * old + static_cast<A>(p_.momentum) * value[c];
      }
    };
    update(p_.running_mean, mean_);
    update(p_.running_var, variance);
  }

  void prepare() {
    std::fill(scale_.begin(), scale_.end(), A{1});
    if (p_.weight.data != nullptr) kernels_.load_columns(p_.weight, p_.columns, 1, scale_.data());
    if (p_.bias.data != nullptr) kernels_.load_columns(p_.bias, p_.columns, 1, shift_.data());
    for (size_t c = 0; c < size(); ++c) scale_[c] *= rstd_[c];
  }

  /// Forward of a block whose residual is added already in training, where the statistics needed it.
  void apply(const EpilogueBlock& all) const {
    if (p_.training || p_.residual.data == nullptr) return kernels_.apply(p_, all);
    EpilogueBlock block = all;
    for (int64_t v = all.row_begin; v < all.row_end; v += kRowsInCache) {
      block.row_begin = v;
      block.row_end = std::min(all.row_end, v + kRowsInCache);
      kernels_.statistics(p_, block, nullptr, nullptr);
      kernels_.apply(p_, block);
    }
  }

  /// Tasks of whole graphs by ranges of columns.
  void apply_by_graph() const {
    if (p_.columns == 0 || p_.graphs == 0) return;
    const int64_t wanted = int64_t{4} * threads_;
    int64_t width = p_.columns;
    while (width > kFewestColumns && divide_up(p_.columns, width) * p_.graphs < wanted) width = divide_up(width, 2);
    const int64_t ranges = divide_up(p_.columns, width);
    const int64_t together = std::max<int64_t>(1, p_.graphs * ranges / (int64_t{16} * threads_));  // graphs of a task
    const int64_t groups = divide_up(p_.graphs, together), tasks = groups * ranges;
    const int threads = static_cast<int>(std::min<int64_t>(threads_, tasks));
    const size_t halves = align_up(static_cast<size_t>(epilogue_scratch(width)));
    const size_t each = halves + align_up(static_cast<size_t>(width) * sizeof(A));
    const Scratch scratch(each * static_cast<size_t>(threads));
    const auto element = static_cast<int64_t>(molfuse_dtype_size(p_.dtype));
    parallel_tasks(threads, tasks, 1, [&](int64_t task, int thread) {
      const int64_t first = task / ranges * together, column = task % ranges * width;
      for (int64_t b = first; b < std::min(p_.graphs, first + together); ++b) {
        EpilogueBlock block = block_of(index_at(p_.graph_ptr, b), index_at(p_.graph_ptr, b + 1), column, std::min(p_.columns, column + width));
        block.scratch = scratch.at<void>(each * static_cast<size_t>(thread));
        A* const sums = scratch.at<A>(each * static_cast<size_t>(thread) + halves);
        const int64_t columns = block.column_end - column, count = block.row_end - block.row_begin;
        std::fill(sums, sums + columns, A{0});
        block.pooled = sums;
        apply(block);
        const EpilogueColumns slot{static_cast<char*>(p_.pooled.data) + (b * p_.pooled.row + column) * element, 1, p_.dtype};
        kernels_.store_columns(slot, columns, count == 0 ? 0 : 1 / static_cast<double>(count), sums);
      }
    });
  }

  /// Calls use(rows) for the runs of a block that belong to one graph, with its share of grad_pooled.
  template <class Use>
  void by_graph(const EpilogueBlock& block, Use&& use) const {
    if (block.grad_pooled == nullptr) return use(block);
    EpilogueBlock rows = block;
    int64_t low = 0, high = p_.graphs - 1;  // the last graph that begins at or before the first row
    while (low < high) {
      const int64_t middle = (low + high + 1) / 2;
      if (index_at(p_.graph_ptr, middle) <= block.row_begin) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    const auto element = static_cast<int64_t>(molfuse_dtype_size(p_.dtype));
    for (int64_t b = low; b < p_.graphs && rows.row_begin < block.row_end; ++b) {
      const int64_t begin = index_at(p_.graph_ptr, b), end = index_at(p_.graph_ptr, b + 1);
      rows.row_end = std::min(end, block.row_end);
      if (rows.row_end <= rows.row_begin) continue;
      const EpilogueColumns slot{static_cast<char*>(p_.grad_pooled.data) + b * p_.grad_pooled.row * element, 1, p_.dtype};
      kernels_.load_columns(slot, p_.columns, 1 / static_cast<double>(end - begin), const_cast<void*>(block.grad_pooled));
      use(rows);
      rows.row_begin = rows.row_end;
    }
  }

  void add_gradients(std::vector<A>& sum_bias, std::vector<A>& sum_weight) const {
    std::vector<A> of_parts(2 * static_cast<size_t>(parts_) * size());
    by_parts([&](EpilogueBlock& block, int64_t part) {
      A* const to = of_parts.data() + 2 * static_cast<size_t>(part) * size();
      by_graph(block, [&](const EpilogueBlock& rows) { kernels_.gradient_sums(p_, rows, to, to + size()); });
    });
    for (size_t c = 0; c < size(); ++c) {
      double bias = 0, weight = 0;
      for (size_t part = 0; part < static_cast<size_t>(parts_); ++part) {
        bias += static_cast<double>(of_parts[2 * part * size() + c]);
        weight += static_cast<double>(of_parts[(2 * part + 1) * size() + c]);
      }
      sum_bias[c] = static_cast<A>(bias);
      sum_weight[c] = static_cast<A>(weight);
    }
  }

  const EpilogueProblem& p_;
  const EncoderEpilogueKernels& kernels_;
  int threads_ = 1;
  int64_t parts_;
  std::vector<A> mean_, scale_, shift_, rstd_;
};

}  // namespace
}  // namespace molfuse

using namespace molfuse;

extern "C" {

molfuse_status molfuse_encoder_epilogue_forward(const molfuse_encoder_epilogue_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_encoder_epilogue_forward");
    const EpilogueProblem p =
        check_problem(read_args(args, "molfuse_encoder_epilogue_forward"), false, where.device_type == MOLFUSE_CUDA);
    MOLFUSE_ON_DEVICE(where, "molfuse_encoder_epilogue_forward", encoder_epilogue_forward_device, p)
    if (p.dtype == MOLFUSE_F64) return Passes<double>(p, where).forward();
    Passes<float>(p, where).forward();
  });
}

molfuse_status molfuse_encoder_epilogue_backward(const molfuse_encoder_epilogue_args* args, const molfuse_execution* execution) {
  return guard([&] {
    const molfuse_execution where = read_execution(execution, "molfuse_encoder_epilogue_backward");
    const EpilogueProblem p =
        check_problem(read_args(args, "molfuse_encoder_epilogue_backward"), true, where.device_type == MOLFUSE_CUDA);
    MOLFUSE_ON_DEVICE(where, "molfuse_encoder_epilogue_backward", encoder_epilogue_backward_device, p)
    if (p.dtype == MOLFUSE_F64) return Passes<double>(p, where).backward();
    Passes<float>(p, where).backward();
  });
}

}  // extern "C"
