// SPDX-License-Identifier: Apache-2.0
#include "molfuse/encoder_epilogue.h"

#include "runtime/philox.h"
#include "support.h"

using namespace molfuse_test;

namespace {

using Values = std::vector<double>;

struct Case {
  int32_t dtype = MOLFUSE_F32, index = MOLFUSE_I64;
  std::vector<int64_t> graphs = {3, 0, 9, 1, 6};  // nodes of each
  int64_t columns = 24;
  bool training = true, residual = true, affine = true, wide_affine = true, running = true, pool = true;
  bool feature_gradient = true, pool_gradient = true, parameter_gradients = true, input_gradient = true;
  double dropout = 0.3;
  int64_t gap = 0, offset = 0, spare = 0;
  double shift = 0;  // added to the input: the mean of its columns
  int threads = 2;
};

struct Results {
  Values y, out, pooled, mean, rstd, running_mean, running_var, grad_input, grad_weight, grad_bias;
};

struct Problem {
  Case c;
  int64_t nodes = 0;
  int32_t wide;
  TestTensor graph_ptr, input, residual, weight, bias, running_mean, running_var, grad_out, grad_pooled;
  const uint64_t seed = 0x123456789ABCDEFull, offset = 0xFEDCBA9876543210ull;

  explicit Problem(const Case& given, uint64_t random_seed = 1) : c(given), wide(c.dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32) {
    Random random(random_seed);
    const int64_t B = static_cast<int64_t>(c.graphs.size());
    graph_ptr = TestTensor(c.index, {B + 1});
    graph_ptr.set(0, 0);
    for (int64_t b = 0; b < B; ++b) graph_ptr.set(b + 1, static_cast<double>(nodes += c.graphs[static_cast<size_t>(b)]));
    input = features(random, true);
    input.fill([&](int64_t n) { return input[n] + c.shift; });
    residual = features(random, true);
    const int32_t affine = c.wide_affine ? wide : c.dtype;
    weight = TestTensor::random(random, affine, {c.columns});
    bias = TestTensor::random(random, affine, {c.columns});
    running_mean = TestTensor::random(random, wide, {c.columns}, {}, 0, 0.3);
    running_var = TestTensor(wide, {c.columns});
    running_var.fill([&](int64_t) { return 0.5 + std::fabs(normal(random)); });
    grad_out = features(random, true);
    grad_pooled = TestTensor::random(random, c.dtype, pooled_sizes(), {}, c.gap);
    // Where y is next to nothing, rounding decides what ReLU's gradient is.
    for (int tries = 0; tries < 50; ++tries) {
      const Values y = formula(false).y;
      bool near = false;
      for (size_t n = 0; n < y.size(); ++n) {
        if (!(std::fabs(y[n]) < 1e-5)) continue;
        input.set(static_cast<int64_t>(n), input[static_cast<int64_t>(n)] + 0.0625);
        near = true;
      }
      if (!near) break;
    }
  }
  TestTensor features(Random& random, bool filled) const {
    return filled ? TestTensor::random(random, c.dtype, {nodes, c.columns}, {}, c.gap) : TestTensor(c.dtype, {nodes, c.columns}, {}, c.gap);
  }
  TestTensor empty_features() const { return TestTensor(c.dtype, {nodes, c.columns}, {}, c.gap); }
  int64_t graphs() const { return static_cast<int64_t>(c.graphs.size()); }
  std::vector<int64_t> pooled_sizes() const { return {graphs(), c.offset + c.columns + c.spare}; }

  /// The factor of an element by the contract of the header.
  double keep(int64_t n) const {
    if (c.dropout == 0) return 1;
    const double threshold = std::min(65535.0, std::max(1.0, std::floor(c.dropout * 65536 + 0.5)));
    const auto group = static_cast<uint64_t>(n / 8);
    const molfuse::PhiloxWords words =
        molfuse::philox(static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), static_cast<uint32_t>(offset),
                        static_cast<uint32_t>(offset >> 32), static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
    const uint32_t half = words.w[n % 8 / 2] >> (16 * (n % 2)) & 0xFFFF;
    return half >= threshold ? 65536 / (65536 - threshold) : 0;
  }

  /// The formula of the header: in f64, or with every intermediate result rounded as unfused operators would.
  Results formula(bool rounding) const {
    const int64_t V = nodes, C = c.columns;
    auto to = [&](int32_t dtype, double value) { return rounding ? round_to(dtype, value) : value; };
    auto t = [&](double value) { return to(c.dtype, value); };
    auto w = [&](double value) { return to(wide, value); };
    Results r;
    Values x(static_cast<size_t>(V * C)), y(x.size()), g(x.size());
    r.out.resize(x.size());
    r.grad_input.resize(x.size());
    for (int64_t n = 0; n < V * C; ++n) x[static_cast<size_t>(n)] = c.residual ? round_to(c.dtype, input[n] + residual[n]) : input[n];
    for (int64_t k = 0; k < C; ++k) {
      double mean = 0, variance = 0;
      for (int64_t v = 0; v < V; ++v) mean += x[static_cast<size_t>(v * C + k)];
      mean /= static_cast<double>(V);
      for (int64_t v = 0; v < V; ++v) variance += std::pow(x[static_cast<size_t>(v * C + k)] - mean, 2);
      const double unbiased = w(variance / static_cast<double>(V - 1));
      variance = w(variance / static_cast<double>(V));
      mean = w(mean);
      if (c.training) {
        r.running_mean.push_back(w(0.9 * running_mean[k] + 0.1 * mean));
        r.running_var.push_back(w(0.9 * running_var[k] + 0.1 * unbiased));
      } else {
        mean = running_mean[k];
        variance = running_var[k];
        r.running_mean.push_back(mean);
        r.running_var.push_back(variance);
      }
      const double rstd = w(1 / std::sqrt(variance + 1e-5));
      r.mean.push_back(mean);
      r.rstd.push_back(rstd);
      const double slope = c.affine ? weight[k] : 1, level = c.affine ? bias[k] : 0;
      double sum_bias = 0, sum_weight = 0;
      for (int64_t b = 0; b < graphs(); ++b) {
        const double count = graph_ptr[b + 1] - graph_ptr[b];
        for (auto v = static_cast<int64_t>(graph_ptr[b]); v < static_cast<int64_t>(graph_ptr[b + 1]); ++v) {
          const auto n = static_cast<size_t>(v * C + k);
          y[n] = t(w(w(x[n] - mean) * rstd * slope) + level);
          r.out[n] = t((y[n] > 0 ? y[n] : 0) * keep(v * C + k));
          double upstream = c.feature_gradient ? grad_out[v * C + k] : 0;
          if (c.pool && c.pool_gradient) upstream = t(upstream + t(grad_pooled[b * pooled_sizes()[1] + c.offset + k] / count));
          g[n] = y[n] > 0 ? t(upstream * keep(v * C + k)) : 0;
          sum_bias += g[n];
          sum_weight += g[n] * w(w(x[n] - mean) * rstd);
        }
      }
      r.grad_bias.push_back(w(sum_bias));
      r.grad_weight.push_back(w(sum_weight));
      for (int64_t v = 0; v < V; ++v) {
        const auto n = static_cast<size_t>(v * C + k);
        double gradient = g[n];
        if (c.training) gradient -= w(sum_bias / static_cast<double>(V)) + w((x[n] - mean) * rstd * w(sum_weight / static_cast<double>(V)));
        r.grad_input[n] = t(w(gradient * w(rstd * slope)));
      }
    }
    r.y = y;
    if (!c.pool) return r;
    r.pooled.assign(static_cast<size_t>(graphs() * pooled_sizes()[1]), std::numeric_limits<double>::quiet_NaN());
    for (int64_t b = 0; b < graphs(); ++b) {
      const double count = graph_ptr[b + 1] - graph_ptr[b];
      for (int64_t k = 0; k < C; ++k) {
        double sum = 0;
        for (auto v = static_cast<int64_t>(graph_ptr[b]); v < static_cast<int64_t>(graph_ptr[b + 1]); ++v) sum = w(sum + r.out[static_cast<size_t>(v * C + k)]);
        r.pooled[static_cast<size_t>(b * pooled_sizes()[1] + c.offset + k)] = count == 0 ? 0 : t(sum / count);
      }
    }
    return r;
  }

  molfuse_encoder_epilogue_args args() {
    auto a = zeroed<molfuse_encoder_epilogue_args>();
    a.input = input.view();
    if (c.affine) {
      a.weight = weight.view();
      a.bias = bias.view();
    }
    a.training = c.training;
    a.momentum = 0.1;
    a.epsilon = 1e-5;
    a.dropout_p = c.dropout;
    a.philox = {seed, offset};
    if (c.pool) a.graph_ptr = graph_ptr.view();
    a.column_offset = c.offset;
    return a;
  }

  Results run() {
    const auto e = execution_here(c.threads);
    Results r;
    TestTensor sum = empty_features(), out = empty_features(), grad_input = empty_features();
    TestTensor pooled(c.dtype, pooled_sizes(), {}, c.gap), mean(wide, {c.columns}), rstd(wide, {c.columns});
    TestTensor grad_weight(wide, {c.columns}), grad_bias(wide, {c.columns}), new_mean = running_mean, new_var = running_var;
    auto a = args();
    if (c.residual) {
      a.residual = residual.view();
      a.sum = sum.view();
    }
    if (c.running) {
      a.running_mean = new_mean.view();
      a.running_var = new_var.view();
    }
    a.save_mean = mean.view();
    a.save_rstd = rstd.view();
    a.out = out.view();
    if (c.pool) a.pooled = pooled.view();
    EXPECT_EQ(molfuse_encoder_epilogue_forward(&a, &e), MOLFUSE_OK) << molfuse_last_error();
    auto b = args();
    if (c.residual) b.input = sum.view();
    b.save_mean = mean.view();
    b.save_rstd = rstd.view();
    if (c.feature_gradient) b.grad_out = grad_out.view();
    if (c.pool && c.pool_gradient) b.grad_pooled = grad_pooled.view();
    if (c.input_gradient) b.grad_input = grad_input.view();
    if (c.parameter_gradients) {
      b.grad_weight = grad_weight.view();
      b.grad_bias = grad_bias.view();
    }
    EXPECT_EQ(molfuse_encoder_epilogue_backward(&b, &e), MOLFUSE_OK) << molfuse_last_error();
    for (const TestTensor* tensor : {&sum, &out, &pooled, &mean, &rstd, &grad_input, &grad_weight, &grad_bias}) EXPECT_TRUE(tensor->unharmed());
    r.out = out.values();
    if (c.pool) r.pooled = pooled.values();
    r.mean = mean.values();
    r.rstd = rstd.values();
    r.running_mean = new_mean.values();
    r.running_var = new_var.values();
    if (c.input_gradient) r.grad_input = grad_input.values();
    if (c.parameter_gradients) {
      r.grad_weight = grad_weight.values();
      r.grad_bias = grad_bias.values();
    }
    return r;
  }
};

double largest(const Values& values) {
  double most = 1;
  for (const double value : values) most = std::isfinite(value) ? std::max(most, std::fabs(value)) : most;
  return most;
}

void expect_right(const Case& c, uint64_t seed = 1) {
  Problem problem(c, seed);
  const Results reference = problem.formula(false), eager = problem.formula(true);
  at_each_level([&](const std::string&) {
    const Results got = problem.run();
    auto compare = [&](const char* what, Values Results::*member, int32_t dtype) {
      if ((got.*member).empty() && what[0] == 'g') return;  // not asked for
      ASSERT_EQ((got.*member).size(), (reference.*member).size()) << what;
      EXPECT_TRUE(accepted(got.*member, eager.*member, reference.*member, small_atol(dtype) * largest(reference.*member))) << what;
    };
    compare("out", &Results::out, c.dtype);
    if (c.pool) compare("pooled", &Results::pooled, c.dtype);
    compare("mean", &Results::mean, problem.wide);
    compare("rstd", &Results::rstd, problem.wide);
    if (c.running) {
      compare("running_mean", &Results::running_mean, problem.wide);
      compare("running_var", &Results::running_var, problem.wide);
    }
    compare("grad_input", &Results::grad_input, c.dtype);
    compare("grad_weight", &Results::grad_weight, problem.wide);
    compare("grad_bias", &Results::grad_bias, problem.wide);
  });
}

TEST(EncoderEpilogue, MatchesFormulaInAllTypesAndModes) {
  for (const int32_t dtype : kFloatTypes) {
    for (const bool training : {true, false}) {
      for (const bool residual : {true, false}) {
        for (const bool pool : {true, false}) {
          Case c;
          c.dtype = dtype;
          c.training = training;
          c.residual = residual;
          c.pool = pool;
          c.index = residual ? MOLFUSE_I32 : MOLFUSE_I64;
          c.dropout = pool == training ? 0.3 : 0;
          SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + (training ? " training" : "") + (residual ? " residual" : "") + (pool ? " pool" : ""));
          expect_right(c);
        }
      }
    }
  }
}

TEST(EncoderEpilogue, MatchesFormulaForAnyWidthAndGap) {
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
    for (const int64_t columns : {1, 7, 8, 9, 33, 64, 200, 300, 513}) {
      for (const int64_t gap : {0, 3, 8}) {
        if (kSlow && columns > 64 && gap == 3) continue;
        Case c;
        c.dtype = dtype;
        c.columns = columns;
        c.gap = gap;
        c.offset = gap == 8 ? 8 : gap;
        c.spare = 5;
        SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + " columns " + std::to_string(columns) + " gap " + std::to_string(gap));
        expect_right(c);
      }
    }
  }
}

TEST(EncoderEpilogue, OptionalArgumentsMayBeMissing) {
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_F16}) {
    for (int which = 0; which < 6; ++which) {
      for (const bool training : {true, false}) {
        Case c;
        c.dtype = dtype;
        c.training = training;
        c.affine = which != 0;
        c.wide_affine = which != 1;
        c.running = which != 2 || !training;
        c.feature_gradient = which != 3;
        c.pool_gradient = which != 4;
        c.parameter_gradients = which != 5;
        SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + " without " + std::to_string(which) + (training ? " training" : ""));
        expect_right(c);
        c.input_gradient = false;
        c.parameter_gradients = true;
        expect_right(c);
      }
    }
  }
}

// Few large graphs, many small ones, and one: every way in which rows are shared out.
TEST(EncoderEpilogue, MatchesFormulaForAnyGraphs) {
  for (const auto& graphs : {std::vector<int64_t>{400}, {1, 500, 2}, std::vector<int64_t>(150, 2), {0, 0, 2}, {257, 255}}) {
    for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
      Case c;
      c.dtype = dtype;
      c.graphs = graphs;
      c.columns = 16;
      SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + " graphs " + std::to_string(graphs.size()) + " of " + std::to_string(graphs[0]));
      expect_right(c);
    }
  }
}

// E[x^2] - E[x]^2 would be lost here.
TEST(EncoderEpilogue, StatisticsOfColumnsFarFromZero) {
  Case c;
  c.shift = 3000;
  c.residual = false;
  c.dropout = 0;
  c.graphs = {40, 60, 100};
  Problem problem(c);
  const Results reference = problem.formula(false);
  at_each_level([&](const std::string&) {
    const Results got = problem.run();
    for (size_t k = 0; k < reference.rstd.size(); ++k) {
      EXPECT_NEAR(got.mean[k] / reference.mean[k], 1, 2e-7);
      EXPECT_NEAR(got.rstd[k] / reference.rstd[k], 1, 1e-4);
    }
  });
}

TEST(EncoderEpilogue, RandomProblems) {
  Random random(std::random_device{}());
  for (int n = 0; n < (kSlow ? 10 : 60); ++n) {
    Case c;
    c.dtype = kFloatTypes[static_cast<size_t>(between(random, 0, static_cast<int64_t>(std::size(kFloatTypes)) - 1))];
    c.graphs.clear();
    for (int64_t b = between(random, 1, 9); b > 0; --b) c.graphs.push_back(between(random, 0, 30));
    c.graphs.push_back(2);
    c.columns = between(random, 1, 80);
    c.training = between(random, 0, 3) != 0;
    c.residual = between(random, 0, 1) != 0;
    c.wide_affine = between(random, 0, 1) != 0;
    c.pool = between(random, 0, 3) != 0;
    c.dropout = between(random, 0, 1) != 0 ? 0.1 : 0;
    c.gap = between(random, 0, 2) * 4;
    c.threads = static_cast<int>(between(random, 1, 3));
    const auto seed = random();
    SCOPED_TRACE("seed " + std::to_string(seed));
    expect_right(c, seed);
  }
}

TEST(EncoderEpilogue, FiniteDifferences) {
  MOLFUSE_CPU_ONLY();
  for (const bool training : {true, false}) {
    Case c;
    c.dtype = MOLFUSE_F64;
    c.training = training;
    c.columns = 5;
    c.graphs = {2, 3, 0, 4};
    Problem problem(c);
    const Results base = problem.run();
    auto loss = [&] {
      const Results r = problem.run();
      double sum = 0;
      for (int64_t n = 0; n < problem.nodes * c.columns; ++n) sum += r.out[static_cast<size_t>(n)] * problem.grad_out[n];
      for (int64_t n = 0; n < problem.grad_pooled.count(); ++n) sum += r.pooled[static_cast<size_t>(n)] * problem.grad_pooled[n];
      return sum;
    };
    auto check = [&](TestTensor& input, const Values& gradient) {
      for (int64_t n = 0; n < input.count(); ++n) {
        const double value = input[n], step = 1e-6;
        input.set(n, value + step);
        const double above = loss();
        input.set(n, value - step);
        const double below = loss();
        input.set(n, value);
        EXPECT_NEAR(gradient[static_cast<size_t>(n)], (above - below) / (2 * step), 1e-6 * (1 + std::fabs(gradient[static_cast<size_t>(n)])));
      }
    };
    check(problem.input, base.grad_input);
    check(problem.residual, base.grad_input);
    check(problem.weight, base.grad_weight);
    check(problem.bias, base.grad_bias);
  }
}

TEST(EncoderEpilogue, TheSameForAnyNumberOfThreadsAndEveryTime) {
  for (const bool pool : {true, false}) {
    Case c;
    c.graphs = std::vector<int64_t>(kSlow ? 20 : 150, 7);
    c.columns = 70;
    c.pool = pool;
    c.threads = 1;
    const Results first = Problem(c).run();
    for (const int threads : {1, 2, 3}) {
      c.threads = threads;
      const Results again = Problem(c).run();
      EXPECT_EQ(first.out, again.out);
      EXPECT_EQ(max_difference(first.pooled, again.pooled), 0);
      EXPECT_EQ(first.grad_input, again.grad_input);
      EXPECT_EQ(first.grad_weight, again.grad_weight);
      EXPECT_EQ(first.running_var, again.running_var);
    }
  }
}

TEST(EncoderEpilogue, GradientAndSumMayTakeTheMemoryOfWhatIsRead) {
  Case c;
  Problem problem(c);
  const Results expected = problem.run();
  const auto e = execution_here(c.threads);
  TestTensor out = problem.empty_features(), mean(problem.wide, {c.columns}), rstd(problem.wide, {c.columns});
  TestTensor pooled(c.dtype, problem.pooled_sizes());
  auto a = problem.args();
  a.residual = problem.residual.view();
  a.sum = problem.input.view();
  a.save_mean = mean.view();
  a.save_rstd = rstd.view();
  a.out = out.view();
  a.pooled = pooled.view();
  ASSERT_EQ(molfuse_encoder_epilogue_forward(&a, &e), MOLFUSE_OK) << molfuse_last_error();
  auto b = problem.args();
  b.save_mean = mean.view();
  b.save_rstd = rstd.view();
  b.grad_out = problem.grad_out.view();
  b.grad_pooled = problem.grad_pooled.view();
  b.grad_input = problem.grad_out.view();
  ASSERT_EQ(molfuse_encoder_epilogue_backward(&b, &e), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(out.values(), expected.out);
  EXPECT_EQ(problem.grad_out.values(), expected.grad_input);
}

TEST(EncoderEpilogue, NaNReachesItsColumnAndItsGraphOnly) {
  for (const bool training : {true, false}) {
    Case c;
    c.training = training;
    c.dropout = 0;
    c.residual = false;
    Problem problem(c);
    problem.input.set(4 * c.columns + 5, std::numeric_limits<double>::quiet_NaN());
    const Results got = problem.run();
    for (int64_t v = 0; v < problem.nodes; ++v) {
      for (int64_t k = 0; k < c.columns; ++k) {
        EXPECT_EQ(std::isnan(got.out[static_cast<size_t>(v * c.columns + k)]), k == 5 && (training || v == 4)) << v << " " << k;
      }
    }
  }
}

TEST(EncoderEpilogue, NoNodes) {
  for (const bool training : {true, false}) {
    Case c;
    c.training = training;
    c.graphs = {0, 0};
    Problem problem(c);
    const Results got = problem.run();
    EXPECT_TRUE(got.out.empty());
    EXPECT_EQ(got.pooled, Values(static_cast<size_t>(2 * c.columns)));
    EXPECT_EQ(got.grad_weight, Values(static_cast<size_t>(c.columns)));
    EXPECT_EQ(got.running_mean, problem.running_mean.values());
    EXPECT_EQ(got.running_var, problem.running_var.values());
  }
}

TEST(EncoderEpilogue, DropoutKeepsItsShare) {
  MOLFUSE_CPU_ONLY();
  Case c;
  c.graphs = {200, 300};
  c.columns = 301;
  for (const double p : {0.1, 0.5, 1e-9, 0.99999999}) {
    c.dropout = p;
    Problem problem(c);
    int64_t kept = 0;
    for (int64_t n = 0; n < 500 * 301; ++n) kept += problem.keep(n) != 0;
    EXPECT_NEAR(static_cast<double>(kept) / (500 * 301), 1 - p, 0.005);
  }
}

void expect_refused(const std::function<void(molfuse_encoder_epilogue_args&)>& spoil, std::initializer_list<const char*> parts,
                    molfuse_status status = MOLFUSE_INVALID_ARGUMENT, bool backward = false) {
  Case c;
  Problem problem(c);
  TestTensor sum = problem.empty_features(), out = problem.empty_features(), mean(problem.wide, {c.columns}), rstd(problem.wide, {c.columns});
  TestTensor pooled(c.dtype, problem.pooled_sizes()), gradient = problem.empty_features();
  auto a = problem.args();
  a.save_mean = mean.view();
  a.save_rstd = rstd.view();
  if (backward) {
    a.grad_out = problem.grad_out.view();
    a.grad_pooled = problem.grad_pooled.view();
    a.grad_input = gradient.view();
  } else {
    a.residual = problem.residual.view();
    a.sum = sum.view();
    a.running_mean = problem.running_mean.view();
    a.running_var = problem.running_var.view();
    a.out = out.view();
    a.pooled = pooled.view();
  }
  spoil(a);
  const auto call = backward ? molfuse_encoder_epilogue_backward : molfuse_encoder_epilogue_forward;
  expect_status(call(&a, here()), status, parts);
  EXPECT_TRUE(out.unharmed() && gradient.unharmed());
}

TEST(EncoderEpilogue, WrongArgumentsAreNamed) {
  using Args = molfuse_encoder_epilogue_args;
  TestTensor other(MOLFUSE_I32, {19, 24}), integers(MOLFUSE_I32, {24});
  expect_refused([&](Args& a) { a.input = other.view(); }, {"input", "int32"});
  expect_refused([&](Args& a) { a.input.ndim = 1; }, {"input", "[V,C]"});
  expect_refused([&](Args& a) { a.input.stride[1] = 2; }, {"input", "stride 1"}, MOLFUSE_UNSUPPORTED);
  expect_refused([&](Args& a) { a.input.size[0] = 1; }, {"input", "two rows"});
  expect_refused([&](Args& a) { a.residual.size[0] = 3; }, {"residual", "[19,24]"});
  expect_refused([&](Args& a) { a.sum.data = nullptr; }, {"sum"});
  expect_refused([&](Args& a) { a.weight.size[0] = 23; }, {"weight", "[24]"});
  expect_refused([&](Args& a) { a.bias = integers.view(); }, {"bias", "int32"});
  expect_refused([&](Args& a) { a.running_var.data = nullptr; }, {"running_mean"});
  expect_refused([&](Args& a) { a.training = 0, a.running_mean.data = a.running_var.data = nullptr; }, {"running_mean", "training"});
  expect_refused([&](Args& a) { a.momentum = 1.5; }, {"momentum", "1.5"});
  expect_refused([&](Args& a) { a.epsilon = -1; }, {"epsilon", "-1"});
  expect_refused([&](Args& a) { a.epsilon = std::numeric_limits<double>::quiet_NaN(); }, {"epsilon"});
  expect_refused([&](Args& a) { a.dropout_p = 1; }, {"dropout_p"});
  expect_refused([&](Args& a) { a.save_mean.data = nullptr; }, {"save_mean"});
  expect_refused([&](Args& a) { a.save_rstd.size[0] = 2; }, {"save_rstd"});
  expect_refused([&](Args& a) { a.out.stride[0] = 0; }, {"out"});
  expect_refused([&](Args& a) { a.pooled.data = nullptr; }, {"pooled"});
  expect_refused([&](Args& a) { a.column_offset = 1; }, {"column_offset", "24", "1"});
  expect_refused([&](Args& a) { a.column_offset = -1; }, {"column_offset", "-1"});
  expect_refused([&](Args& a) { a.graph_ptr = integers.view(), a.graph_ptr.size[0] = 0; }, {"graph_ptr"});
  expect_refused([&](Args& a) { a.graph_ptr = integers.view(), a.graph_ptr.size[0] = 1; }, {"graph_ptr"});
  expect_refused([&](Args& a) { a.struct_size = 0; }, {"struct_size"});
  expect_refused([&](Args& a) { a.grad_out.data = a.grad_pooled.data = nullptr; }, {"grad_out", "grad_pooled"}, MOLFUSE_INVALID_ARGUMENT, true);
  expect_refused([&](Args& a) { a.graph_ptr.data = nullptr; }, {"graph_ptr", "grad_pooled"}, MOLFUSE_INVALID_ARGUMENT, true);
  expect_refused([&](Args& a) { a.grad_input.size[1] = 3; }, {"grad_input"}, MOLFUSE_INVALID_ARGUMENT, true);
  expect_refused([&](Args& a) { a.grad_weight = integers.view(); }, {"grad_weight"}, MOLFUSE_INVALID_ARGUMENT, true);
  expect_refused([&](Args& a) { a.grad_pooled.size[0] = 4; }, {"grad_pooled"}, MOLFUSE_INVALID_ARGUMENT, true);
}

// Values that only the device sees: told by the next call.
TEST(EncoderEpilogue, WrongGraphPointersAreReported) {
  for (const auto& pointers : {std::vector<double>{0, 3, 2, 12, 13, 19}, {1, 3, 3, 12, 13, 19}, {0, 3, 3, 12, 13, 20}, {0, 3, 3, 12, 13, 18}, {-5, 3, 3, 12, 13, 19}}) {
    for (const bool backward : {false, true}) {
      // On a device, forward looks at every graph, and backward at those in which its rows are found: no row finds graph 1 here.
      if (kOnDevice && backward && pointers[2] < pointers[1]) continue;
      Case c;
      Problem problem(c);
      problem.graph_ptr.fill([&](int64_t n) { return pointers[static_cast<size_t>(n)]; });
      TestTensor out = problem.empty_features(), mean(problem.wide, {c.columns}), rstd(problem.wide, {c.columns}), pooled(c.dtype, problem.pooled_sizes());
      mean.fill([](int64_t) { return 0; });
      rstd.fill([](int64_t) { return 1; });
      auto a = problem.args();
      a.save_mean = mean.view();
      a.save_rstd = rstd.view();
      if (backward) {
        a.grad_pooled = problem.grad_pooled.view();
        a.grad_input = out.view();
      } else {
        a.out = out.view();
        a.pooled = pooled.view();
      }
      const auto call = backward ? molfuse_encoder_epilogue_backward : molfuse_encoder_epilogue_forward;
      molfuse_status status = call(&a, here());
      if (kOnDevice) {
        EXPECT_EQ(status, MOLFUSE_OK) << molfuse_last_error();
        status = call(&a, here());
      }
      expect_status(status, MOLFUSE_INVALID_ARGUMENT, {"graph_ptr"});
      EXPECT_TRUE(out.unharmed() && pooled.unharmed());
    }
  }
}

}  // namespace
