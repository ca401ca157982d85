// SPDX-License-Identifier: Apache-2.0
#include "molfuse/graph_attention.h"

#include "support.h"

using namespace molfuse_test;

namespace {

constexpr uint64_t kSeed = 0x0123456789ABCDEFull, kOffset = (uint64_t{3} << 32) + 11;

/// Philox written down again from the paper, so that the dropout contract is not tested against the code it is about.
std::vector<uint32_t> philox_words(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int r = 0; r < 10; ++r) {
    const uint64_t a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

using Edges = std::vector<std::pair<int64_t, int64_t>>;  // source, target

struct Case {
  int32_t dtype = MOLFUSE_F32, index = MOLFUSE_I64;
  int64_t nodes = 0, heads = 2, channels = 16;
  Edges edges;
  double dropout = 0;
  double scale = 0;  // 0: default
  int layout = 0;    // 0 packed, 1 [H,V,C] in memory with gaps, 2 channels outermost
  int threads = 2;  // small work would not get them by itself
};

/// A batch of random graphs with duplicate edges, self loops and isolated nodes.
Edges batch_edges(Random& random, int64_t graphs, int64_t nodes, int64_t edges) {
  Edges list;
  for (int64_t g = 0; g < graphs; ++g) {
    for (int64_t e = 0; e < edges; ++e) list.push_back({g * nodes + between(random, 0, nodes - 2), g * nodes + between(random, 0, nodes - 2)});
    if (edges > 0) list.push_back(list.back());
  }
  return list;
}

struct Graph {
  TestTensor row_ptr, source, row_ptr_t, target, edge_id;

  Graph() = default;
  Graph(int32_t index, int64_t nodes, const Edges& edges, int64_t gap = 0) {
    const int64_t count = static_cast<int64_t>(edges.size());
    auto strided = [&](int64_t size) {
      // A column of a [size, 1+gap] block: entries lie apart.
      return gap == 0 ? TestTensor(index, {size}) : TestTensor(index, {size, 1}, {}, gap);
    };
    row_ptr = strided(nodes + 1);
    source = strided(count);
    row_ptr_t = strided(nodes + 1);
    target = strided(count);
    edge_id = strided(count);
    TestTensor from(MOLFUSE_I64, {count}), to(MOLFUSE_I64, {count});
    from.fill([&](int64_t n) { return static_cast<double>(edges[static_cast<size_t>(n)].first); });
    to.fill([&](int64_t n) { return static_cast<double>(edges[static_cast<size_t>(n)].second); });
    const molfuse_tensor from_view = from.view(), to_view = to.view();
    molfuse_graph g = view();
    EXPECT_EQ(molfuse_graph_from_edges(&from_view, &to_view, nodes, &g, nullptr, nullptr), MOLFUSE_OK) << molfuse_last_error();
    EXPECT_EQ(molfuse_graph_transpose(&g, nullptr), MOLFUSE_OK) << molfuse_last_error();
  }

  static molfuse_tensor line(TestTensor& tensor) {
    molfuse_tensor v = tensor.view();
    v.ndim = 1;
    return v;
  }
  molfuse_graph view() { return {line(row_ptr), line(source), line(row_ptr_t), line(target), line(edge_id)}; }
};

struct Results {
  std::vector<double> out, lse, grad_query, grad_key, grad_value;
};

struct Problem {
  Case c;
  Graph graph;
  TestTensor query, key, value, grad_out;

  explicit Problem(const Case& given, uint64_t seed = 1) : c(given), graph(c.index, c.nodes, c.edges) {
    Random random(seed);
    auto draw = [&] { return TestTensor::random(random, c.dtype, {c.nodes, c.heads, c.channels}, order(), gap()); };
    query = draw();
    key = draw();
    value = draw();
    grad_out = draw();
  }

  std::vector<int> order() const { return c.layout == 0 ? std::vector<int>{} : c.layout == 1 ? std::vector<int>{1, 0, 2} : std::vector<int>{2, 0, 1}; }
  int64_t gap() const { return c.layout == 0 ? 0 : 3; }
  TestTensor output() const { return TestTensor(c.dtype, {c.nodes, c.heads, c.channels}, order(), gap()); }
  int32_t accumulate() const { return c.dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32; }
  TestTensor statistic() const { return TestTensor(accumulate(), {c.nodes, c.heads}, c.layout == 0 ? std::vector<int>{} : std::vector<int>{1, 0}, gap()); }
  double scale() const { return c.scale != 0 ? c.scale : 1 / std::sqrt(static_cast<double>(c.channels)); }

  molfuse_graph_attention_args args() {
    auto a = zeroed<molfuse_graph_attention_args>();
    a.query = query.view();
    a.key = key.view();
    a.value = value.view();
    a.graph = graph.view();
    a.has_scale = c.scale != 0;
    a.scale = c.scale;
    a.dropout_p = c.dropout;
    a.philox = {kSeed, kOffset};
    return a;
  }

  Execution execution() const {
    return execution_here(c.threads);
  }

  double keep(int64_t edge, int64_t head) const {
    if (c.dropout == 0) return 1;
    const auto words = philox_words(static_cast<uint32_t>(edge), static_cast<uint32_t>(edge >> 32), static_cast<uint32_t>(head / 4),
                                    static_cast<uint32_t>(kOffset), kSeed + (kOffset >> 32));
    return words[static_cast<size_t>(head % 4)] >= std::floor(c.dropout * 4294967296.0) ? 1 / (1 - c.dropout) : 0;
  }

  /// The formulas of the header edge by edge in f64. With rounding, each step's result is stored in the operands' type and sums run
  /// in the accumulator type, as in a computation by gathers and scatters.
  Results formula(bool rounding) {
    const int64_t V = c.nodes, H = c.heads, C = c.channels;
    auto stored = [&](double x) { return rounding ? round_to(c.dtype, x) : x; };
    auto add = [&](double& sum, double x) { sum = rounding ? round_to(accumulate(), sum + stored(x)) : sum + x; };
    Results r;
    const size_t all = static_cast<size_t>(V * H * C);
    r.out.assign(all, 0);
    r.grad_query.assign(all, 0);
    r.grad_key.assign(all, 0);
    r.grad_value.assign(all, 0);
    r.lse.assign(static_cast<size_t>(V * H), -std::numeric_limits<double>::infinity());
    const std::vector<double> q = query.values(), k = key.values(), v = value.values(), g = grad_out.values();
    auto at = [&](int64_t node, int64_t h, int64_t n) { return static_cast<size_t>((node * H + h) * C + n); };
    for (int64_t t = 0; t < V; ++t) {
      const int64_t begin = static_cast<int64_t>(graph.row_ptr[t]), end = static_cast<int64_t>(graph.row_ptr[t + 1]);
      for (int64_t h = 0; h < H && begin < end; ++h) {
        std::vector<double> p, dp;
        double largest = -std::numeric_limits<double>::infinity(), total = 0;
        for (int64_t e = begin; e < end; ++e) {
          const int64_t s = static_cast<int64_t>(graph.source[e]);
          double score = 0;
          for (int64_t n = 0; n < C; ++n) add(score, q[at(t, h, n)] * k[at(s, h, n)]);
          p.push_back(stored(scale() * stored(score)));
          largest = std::max(largest, p.back());
        }
        for (double& x : p) add(total, x = stored(std::exp(x - largest)));
        r.lse[static_cast<size_t>(t * H + h)] = largest + std::log(total);
        double delta = 0;
        for (int64_t e = begin; e < end; ++e) {
          const int64_t s = static_cast<int64_t>(graph.source[e]);
          double& x = p[static_cast<size_t>(e - begin)];
          x = stored(x / stored(total));
          double d = 0;
          for (int64_t n = 0; n < C; ++n) {
            add(r.out[at(t, h, n)], x * keep(e, h) * v[at(s, h, n)]);
            add(d, g[at(t, h, n)] * v[at(s, h, n)]);
            add(r.grad_value[at(s, h, n)], x * keep(e, h) * g[at(t, h, n)]);
          }
          dp.push_back(stored(d) * keep(e, h));
          add(delta, dp.back() * x);
        }
        for (int64_t e = begin; e < end; ++e) {
          const int64_t s = static_cast<int64_t>(graph.source[e]);
          const double ds = stored(p[static_cast<size_t>(e - begin)] * stored(dp[static_cast<size_t>(e - begin)] - stored(delta)) * scale());
          for (int64_t n = 0; n < C; ++n) {
            add(r.grad_query[at(t, h, n)], ds * k[at(s, h, n)]);
            add(r.grad_key[at(s, h, n)], ds * q[at(t, h, n)]);
          }
        }
      }
    }
    if (rounding) {
      for (auto* list : {&r.out, &r.grad_query, &r.grad_key, &r.grad_value}) {
        for (double& x : *list) x = stored(x);
      }
      for (double& x : r.lse) x = round_to(accumulate(), x);
    }
    return r;
  }

  Results run() {
    TestTensor out = output(), lse = statistic(), grad_query = output(), grad_key = output(), grad_value = output();
    auto a = args();
    a.out = out.view();
    a.lse = lse.view();
    const auto e = execution();
    EXPECT_EQ(molfuse_graph_attention_forward(&a, &e), MOLFUSE_OK) << molfuse_last_error();
    a.out = zeroed<molfuse_graph_attention_args>().out;  // backward does not need it
    a.grad_out = grad_out.view();
    a.grad_query = grad_query.view();
    a.grad_key = grad_key.view();
    a.grad_value = grad_value.view();
    EXPECT_EQ(molfuse_graph_attention_backward(&a, &e), MOLFUSE_OK) << molfuse_last_error();
    for (const TestTensor* t : {&out, &lse, &grad_query, &grad_key, &grad_value}) EXPECT_TRUE(t->unharmed());
    return {out.values(), lse.values(), grad_query.values(), grad_key.values(), grad_value.values()};
  }
};

void expect_right(const Case& c) {
  Problem problem(c);
  const Results reference = problem.formula(false), eager = problem.formula(true);
  at_each_level([&](const std::string&) {
    const Results got = problem.run();
    const double atol = small_atol(c.dtype);
    EXPECT_TRUE(accepted(got.out, eager.out, reference.out, atol)) << "out";
    EXPECT_TRUE(accepted(got.lse, eager.lse, reference.lse, small_atol(problem.accumulate()))) << "lse";
    EXPECT_TRUE(accepted(got.grad_query, eager.grad_query, reference.grad_query, atol)) << "grad_query";
    EXPECT_TRUE(accepted(got.grad_key, eager.grad_key, reference.grad_key, atol)) << "grad_key";
    EXPECT_TRUE(accepted(got.grad_value, eager.grad_value, reference.grad_value, atol)) << "grad_value";
  });
}

TEST(GraphAttention, MatchesFormulaInAllTypesSizesAndLayouts) {
  Random random(7);
  for (const int32_t dtype : kFloatTypes) {
    for (const int64_t channels : {1, 3, 8, 16, 31, 64, 100, 129}) {
      for (const int layout : {0, 1, 2}) {
        Case c;
        c.dtype = dtype;
        c.index = channels % 2 == 0 ? MOLFUSE_I32 : MOLFUSE_I64;
        c.heads = 1 + channels % 5;
        c.channels = channels;
        c.layout = layout;
        c.nodes = 3 * 7;
        c.edges = batch_edges(random, 3, 7, 11);
        SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + " C" + std::to_string(channels) + " layout " + std::to_string(layout));
        expect_right(c);
      }
    }
  }
}

TEST(GraphAttention, MatchesFormulaAtDegreesAroundChunks) {
  for (const int32_t dtype : {MOLFUSE_F32, kOnDevice ? MOLFUSE_F16 : MOLFUSE_F64, MOLFUSE_BF16}) {
    for (const int64_t degree : {1, 2, 15, 16, 17, 63, 64, 65, 128, 200}) {
      Case c;
      c.dtype = dtype;
      c.nodes = degree + 1;
      c.channels = 24;
      for (int64_t n = 0; n < degree; ++n) {
        c.edges.push_back({n, degree});  // into the last node
        c.edges.push_back({degree, n});  // and out of it
      }
      SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + " degree " + std::to_string(degree));
      expect_right(c);
    }
  }
}

Case hub_case(int32_t dtype, int64_t in_edges, int64_t out_edges) {
  Case c;
  c.dtype = dtype;
  c.nodes = 50;
  c.heads = 3;
  c.channels = 5;
  Random random(5);
  for (int64_t n = 0; n < in_edges; ++n) c.edges.push_back({between(random, 0, 49), 17});
  for (int64_t n = 0; n < out_edges; ++n) c.edges.push_back({4, between(random, 0, 49)});
  for (int64_t n = 0; n < 60; ++n) c.edges.push_back({between(random, 0, 49), between(random, 0, 49)});
  return c;
}

TEST(GraphAttention, MatchesFormulaWithHubs) {
  // The simulated device takes rows of more than 40 edges for hubs.
  const std::vector<std::pair<int64_t, int64_t>> cases =
      kSlow ? std::vector<std::pair<int64_t, int64_t>>{{38, 0}, {41, 0}, {0, 60}, {300, 200}}
                 : std::vector<std::pair<int64_t, int64_t>>{{1024, 0}, {1025, 0}, {0, 1025}, {5000, 3000}, {0, 2100}};
  for (const auto& sizes : cases) {
    SCOPED_TRACE(std::to_string(sizes.first) + " in, " + std::to_string(sizes.second) + " out");
    expect_right(hub_case(MOLFUSE_F32, sizes.first, sizes.second));
    Case dropped = hub_case(kOnDevice ? MOLFUSE_F32 : MOLFUSE_F64, sizes.first, sizes.second);
    dropped.dropout = 0.3;
    expect_right(dropped);
  }
}

TEST(GraphAttention, DropoutFollowsItsContract) {
  Random random(3);
  for (const int32_t dtype : kFloatTypes) {
    for (const double p : {0.1, 0.5, 0.95, 1e-12}) {
      Case c;
      c.dtype = dtype;
      c.heads = 6;
      c.nodes = 60;
      c.edges = batch_edges(random, 2, 30, 120);
      c.dropout = p;
      c.scale = 0.4;
      SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + " p " + std::to_string(p));
      expect_right(c);
    }
  }
}

TEST(GraphAttention, GradientsAreThoseOfFiniteDifferences) {
  MOLFUSE_CPU_ONLY();
  for (const double dropout : {0.0, 0.4}) {
    Random random(11);
    Case c;
    c.dtype = MOLFUSE_F64;
    c.nodes = 9;
    c.heads = 2;
    c.channels = 5;
    c.edges = batch_edges(random, 1, 9, 20);
    c.dropout = dropout;
    Problem problem(c);
    const Results analytic = problem.run();
    auto loss = [&] {
      TestTensor out = problem.output();
      auto a = problem.args();
      a.out = out.view();
      EXPECT_EQ(molfuse_graph_attention_forward(&a, here()), MOLFUSE_OK);
      double sum = 0;
      for (int64_t n = 0; n < out.count(); ++n) sum += out[n] * problem.grad_out[n];
      return sum;
    };
    auto check = [&](TestTensor& operand, const std::vector<double>& gradient, const char* name) {
      for (int64_t n = 0; n < operand.count(); ++n) {
        const double x = operand[n], step = 1e-5;
        operand.set(n, x + step);
        const double up = loss();
        operand.set(n, x - step);
        const double down = loss();
        operand.set(n, x);
        ASSERT_NEAR((up - down) / (2 * step), gradient[static_cast<size_t>(n)], 1e-8) << name << " element " << n;
      }
    };
    check(problem.query, analytic.grad_query, "query");
    check(problem.key, analytic.grad_key, "key");
    check(problem.value, analytic.grad_value, "value");
  }
}

TEST(GraphAttention, ResultsDoNotDependOnTheNumberOfThreads) {
  MOLFUSE_CPU_ONLY();
  Random random(13);
  std::vector<Case> cases = {hub_case(MOLFUSE_F32, 5000, 3000), hub_case(MOLFUSE_BF16, 1500, 100)};
  Case small;
  small.nodes = 400;
  small.heads = 5;
  small.channels = 33;
  small.edges = batch_edges(random, 40, 10, 14);
  cases.push_back(small);
  small.edges = batch_edges(random, 1, 400, 900);
  cases.push_back(small);
  for (Case c : cases) {
    c.dropout = 0.2;
    c.threads = 1;
    const Results one = Problem(c).run();
    for (const int threads : {2, 3, 7}) {
      c.threads = threads;
      const Results many = Problem(c).run();
      EXPECT_EQ(one.out, many.out);
      EXPECT_EQ(one.lse, many.lse);
      EXPECT_EQ(one.grad_query, many.grad_query);
      EXPECT_EQ(one.grad_key, many.grad_key);
      EXPECT_EQ(one.grad_value, many.grad_value);
    }
  }
}

TEST(GraphAttention, LargeScoresStayFinite) {
  Case c;
  c.nodes = 3;
  c.heads = 1;
  c.channels = 4;
  c.edges = {{0, 1}, {2, 1}, {1, 1}, {1, 0}};
  c.scale = 1;
  Problem problem(c);
  problem.query.fill([](int64_t) { return 1e4; });
  problem.key.fill([](int64_t n) { return n < 4 ? 1e4 : 0.0; });  // node 0's score is 4e8 above the others'
  const Results got = problem.run();
  for (int64_t n = 0; n < 4; ++n) EXPECT_EQ(got.out[static_cast<size_t>(4 + n)], problem.value[n]);
  for (const double x : got.grad_query) EXPECT_TRUE(std::isfinite(x));
  for (const double x : got.grad_key) EXPECT_TRUE(std::isfinite(x));
}

TEST(GraphAttention, NotANumberStaysWhereItBelongs) {
  Case c;
  c.nodes = 4;
  c.edges = {{0, 1}, {2, 3}};
  Problem problem(c);
  problem.value.set(0, std::numeric_limits<double>::quiet_NaN());
  at_each_level([&](const std::string&) {
    const Results got = problem.run();
    EXPECT_TRUE(std::isnan(got.out[static_cast<size_t>(c.heads * c.channels)]));
    for (size_t n = static_cast<size_t>(3 * c.heads * c.channels); n < got.out.size(); ++n) EXPECT_FALSE(std::isnan(got.out[n]));
  });
}

TEST(GraphAttention, EmptyGraphsAndNodesWithoutEdges) {
  Case c;
  c.nodes = 5;
  Problem isolated(c);  // no edges at all
  const Results got = isolated.run();
  for (const auto* list : {&got.out, &got.grad_query, &got.grad_key, &got.grad_value}) EXPECT_EQ(*list, std::vector<double>(list->size(), 0.0));
  for (const double x : got.lse) EXPECT_EQ(x, -std::numeric_limits<double>::infinity());
  c.nodes = 0;
  EXPECT_TRUE(Problem(c).run().out.empty());
}

TEST(GraphAttention, UnwantedGradientsMayBeAbsent) {
  Random random(2);
  Case c;
  c.nodes = 30;
  c.edges = batch_edges(random, 3, 10, 20);
  for (const bool hubs : {false, true}) {
    Problem problem(hubs ? kSlow ? hub_case(MOLFUSE_F32, 90, 80) : hub_case(MOLFUSE_F32, 1200, 1300) : c);
    const Results all = problem.run();
    TestTensor out = problem.output(), lse = problem.statistic();
    auto a = problem.args();
    a.out = out.view();
    a.lse = lse.view();
    ASSERT_EQ(molfuse_graph_attention_forward(&a, here()), MOLFUSE_OK);
    a.grad_out = problem.grad_out.view();
    for (int only = 0; only < 3; ++only) {
      TestTensor gradient = problem.output();
      auto b = a;
      (only == 0 ? b.grad_query : only == 1 ? b.grad_key : b.grad_value) = gradient.view();
      if (only == 0) {  // needs no transpose
        const auto none = zeroed<molfuse_graph_attention_args>().graph;
        b.graph.row_ptr_t = none.row_ptr_t;
        b.graph.target = none.target;
        b.graph.edge_id = none.edge_id;
      }
      ASSERT_EQ(molfuse_graph_attention_backward(&b, here()), MOLFUSE_OK) << molfuse_last_error();
      EXPECT_EQ(gradient.values(), only == 0 ? all.grad_query : only == 1 ? all.grad_key : all.grad_value);
    }
  }
}

TEST(GraphAttention, BroadcastInputsMayHaveAbsentGradients) {
  Case c;
  c.nodes = 6;
  Random random(2);
  c.edges = batch_edges(random, 1, 6, 9);
  Problem problem(c);
  TestTensor row = TestTensor::random(random, c.dtype, {c.nodes, 1, c.channels}), grad_value = problem.output(), out = problem.output(),
             lse = problem.statistic();
  auto a = problem.args();
  a.query = row.view();
  a.query.size[1] = c.heads;
  a.query.stride[1] = 0;
  a.out = out.view();
  a.lse = lse.view();
  ASSERT_EQ(molfuse_graph_attention_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
  a.grad_out = problem.grad_out.view();
  a.grad_value = grad_value.view();
  EXPECT_EQ(molfuse_graph_attention_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
  for (const double g : grad_value.values()) EXPECT_TRUE(std::isfinite(g));
}

TEST(GraphAttention, WrongGraphsInDeviceMemoryAreReportedByTheNextCall) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  Random random(4);
  Case c;
  c.nodes = 8;
  c.edges = batch_edges(random, 1, 8, 12);
  struct Wrong {
    TestTensor Graph::*which;
    int64_t at;
    double value;
    std::vector<const char*> parts;
  };
  const std::vector<Wrong> cases = {{&Graph::source, 9, 8, {"edge", "got 8", "position 9"}},
                                    {&Graph::source, 9, -1, {"edge", "got -1", "position 9"}},
                                    {&Graph::row_ptr, 8, 14, {"row_ptr", "got 14", "position 8"}},
                                    {&Graph::row_ptr, 0, -3, {"row_ptr", "got -3", "position 0"}},
                                    {&Graph::target, 2, 1e9, {"edge", "position 2"}},
                                    {&Graph::edge_id, 2, 13, {"edge", "got 13", "position 2"}}};
  for (const Wrong& wrong : cases) {
    Problem problem(c);
    (problem.graph.*(wrong.which)).set(wrong.at, wrong.value);
    TestTensor out = problem.output(), lse = problem.statistic(), gradient = problem.output();
    auto a = problem.args();
    a.out = out.view();
    a.lse = lse.view();
    const bool transposed = wrong.which == &Graph::target || wrong.which == &Graph::edge_id;
    ASSERT_EQ(molfuse_graph_attention_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    if (transposed) {
      a.grad_out = problem.grad_out.view();
      a.grad_key = gradient.view();
      ASSERT_EQ(molfuse_graph_attention_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    }
    EXPECT_TRUE(out.unharmed() && lse.unharmed() && gradient.unharmed());
    EXPECT_EQ(molfuse_graph_attention_forward(&a, here()), MOLFUSE_INVALID_ARGUMENT);
    for (const char* part : wrong.parts) EXPECT_NE(std::string(molfuse_last_error()).find(part), std::string::npos) << molfuse_last_error();
  }
}

TEST(GraphAttention, BadInputIsRefusedBeforeAnyWrite) {
  Random random(4);
  Case c;
  c.nodes = 8;
  c.edges = batch_edges(random, 1, 8, 12);
  Problem problem(c);
  TestTensor out = problem.output(), lse = problem.statistic(), gradient = problem.output();
  const std::vector<unsigned char> untouched = out.bytes();
  auto good = problem.args();
  good.out = out.view();
  good.lse = lse.view();
  auto forward = [&](const std::function<void(molfuse_graph_attention_args&)>& change, std::initializer_list<const char*> parts) {
    auto a = good;
    change(a);
    expect_invalid(molfuse_graph_attention_forward(&a, here()), parts);
    EXPECT_EQ(out.bytes(), untouched);
  };
  using Args = molfuse_graph_attention_args;
  TestTensor index(MOLFUSE_I64, {13}), pointers(MOLFUSE_I64, {9});
  auto sources = [&](double wrong) {
    index.fill([&](int64_t n) { return n == 9 ? wrong : 0.0; });
    return index.view();
  };
  auto rows = [&](std::vector<double> values) {
    pointers.fill([&](int64_t n) { return values[static_cast<size_t>(n)]; });
    return pointers.view();
  };
  forward([&](Args& a) { a.query.dtype = MOLFUSE_I32; }, {"query", "int32"});
  forward([&](Args& a) { a.query.ndim = 2; }, {"query", "[*,*,*]"});
  forward([&](Args& a) { a.query.size[2] = 0; }, {"query", "channel"});
  forward([&](Args& a) { a.key.dtype = MOLFUSE_F16; }, {"key", "f32", "f16"});
  forward([&](Args& a) { a.key.size[2] = 15; }, {"key", "[8,2,16]", "[8,2,15]"});
  forward([&](Args& a) { a.value.size[0] = 7; }, {"value", "[7,2,16]"});
  forward([&](Args& a) { a.value.data = nullptr; }, {"value", "required"});
  forward([&](Args& a) { a.out.data = nullptr; }, {"out", "required"});
  forward([&](Args& a) { a.out.stride[1] = 0; }, {"out", "stride 0"});
  forward([&](Args& a) { a.lse.dtype = MOLFUSE_F64; }, {"lse", "f32", "f64"});
  forward([&](Args& a) { a.lse.size[1] = 3; }, {"lse", "[8,2]", "[8,3]"});
  forward([&](Args& a) { a.has_scale = 1, a.scale = std::numeric_limits<double>::quiet_NaN(); }, {"scale"});
  forward([&](Args& a) { a.dropout_p = 1; }, {"dropout_p", "[0,1)"});
  forward([&](Args& a) { a.dropout_p = -0.1; }, {"dropout_p"});
  forward([&](Args& a) { a.graph.row_ptr.dtype = MOLFUSE_F32; }, {"row_ptr", "int32", "f32"});
  forward([&](Args& a) { a.graph.row_ptr.size[0] = 8; }, {"row_ptr", "[9]", "[8]"});
  forward([&](Args& a) { a.graph.row_ptr.data = nullptr; }, {"row_ptr", "required"});
  forward([&](Args& a) { a.graph.source.dtype = MOLFUSE_I32; }, {"source", "int64", "int32"});
  if (!kOnDevice) {
    forward([&](Args& a) { a.graph.source.size[0] = 12; }, {"row_ptr", "12", "13"});
    forward([&](Args& a) { a.graph.source = sources(8); }, {"source", "0..7", "got 8", "position 9"});
    forward([&](Args& a) { a.graph.source = sources(-1); }, {"source", "got -1", "position 9"});
    forward([&](Args& a) { a.graph.source = sources(4294967296.0); }, {"source", "4294967296"});
    forward([&](Args& a) { a.graph.row_ptr = rows({1, 1, 1, 1, 1, 1, 1, 1, 13}); }, {"row_ptr", "row_ptr[0] = 0"});
    forward([&](Args& a) { a.graph.row_ptr = rows({0, 5, 4, 6, 7, 8, 9, 10, 13}); }, {"row_ptr", "ascending", "4 after 5", "position 2"});
    forward([&](Args& a) { a.graph.row_ptr = rows({0, 1, 1, 1, 1, 1, 1, 1, 12}); }, {"row_ptr", "13", "12"});
  }
  forward([&](Args& a) { a.struct_size = 0; }, {"struct_size"});
  expect_invalid(molfuse_graph_attention_forward(nullptr, nullptr), {"molfuse_graph_attention_forward", "NULL"});

  ASSERT_EQ(molfuse_graph_attention_forward(&good, here()), MOLFUSE_OK);
  const std::vector<unsigned char> poison = gradient.bytes();
  good.grad_out = problem.grad_out.view();
  good.grad_key = gradient.view();
  auto backward = [&](const std::function<void(Args&)>& change, std::initializer_list<const char*> parts) {
    auto a = good;
    change(a);
    expect_invalid(molfuse_graph_attention_backward(&a, here()), parts);
    EXPECT_EQ(gradient.bytes(), poison);
  };
  auto swapped = [&](TestTensor& of, int64_t a, int64_t b) {
    TestTensor copy = of;
    copy.set(a, of[b]);
    copy.set(b, of[a]);
    return copy;
  };
  backward([&](Args& a) { a.grad_out.data = nullptr; }, {"grad_out", "required"});
  backward([&](Args& a) { a.lse.data = nullptr; }, {"lse", "required"});
  backward([&](Args& a) { a.grad_key.size[1] = 1; }, {"grad_key", "[8,2,16]"});
  backward([&](Args& a) { a.grad_value = a.grad_key, a.grad_value.dtype = MOLFUSE_BF16; }, {"grad_value", "bf16"});
  backward([&](Args& a) { a.graph.row_ptr_t.data = nullptr; }, {"row_ptr_t", "required"});
  backward([&](Args& a) { a.graph.target.data = nullptr; }, {"target", "required"});
  backward([&](Args& a) { a.graph.edge_id.size[0] = 4; }, {"edge_id", "[13]", "[4]"});
  if (kOnDevice) return;  // values are seen by the kernels only
  backward([&](Args& a) { a.graph.target = sources(8); }, {"target", "0..7", "got 8"});
  backward([&](Args& a) { a.graph.edge_id = sources(13); }, {"edge_id", "0..12", "got 13"});
  backward([&](Args& a) { a.graph.edge_id = sources(0); }, {"edge_id", "transpose"});
  backward([&](Args& a) { a.graph.row_ptr_t = rows({0, 13, 13, 13, 13, 13, 13, 13, 13}); }, {"edge_id", "transpose"});
  int64_t apart = 1;  // two positions whose targets differ
  while (problem.graph.target[apart] == problem.graph.target[0]) ++apart;
  TestTensor wrong = swapped(problem.graph.target, 0, apart);
  backward([&](Args& a) { a.graph.target = wrong.view(); }, {"edge_id", "transpose"});
}

TEST(GraphAttention, BackwardRefusesAnEdgeThatOccursTwiceInTheTranspose) {
  MOLFUSE_CPU_ONLY();
  Case c;
  c.nodes = 2;
  c.edges = {{0, 1}, {0, 1}};  // parallel edges: ids 0 and 1
  Problem problem(c);
  TestTensor lse = problem.statistic(), gradient = problem.output();
  lse.fill([](int64_t) { return 0.0; });
  problem.graph.edge_id.set(1, 0);
  auto a = problem.args();
  a.lse = lse.view();
  a.grad_out = problem.grad_out.view();
  a.grad_value = gradient.view();
  expect_invalid(molfuse_graph_attention_backward(&a, here()), {"edge_id", "occurred before"});
}

TEST(GraphAttention, AStridedOutputIsNotTouchedWhenALaterArgumentIsWrong) {
  MOLFUSE_CPU_ONLY();
  Random random(4);
  Case c;
  c.nodes = 8;
  c.layout = 2;
  c.edges = batch_edges(random, 1, 8, 12);
  Problem problem(c);
  TestTensor lse = problem.statistic(), gradient = problem.output();
  lse.fill([](int64_t) { return 0.0; });
  const std::vector<unsigned char> untouched = gradient.bytes();
  auto a = problem.args();
  a.lse = lse.view();
  a.grad_out = problem.grad_out.view();
  a.grad_query = gradient.view();
  a.grad_key = gradient.view();
  a.grad_key.size[0] = 9;
  expect_invalid(molfuse_graph_attention_backward(&a, here()), {"grad_key"});
  EXPECT_EQ(gradient.bytes(), untouched);
}

TEST(Graph, FromEdgesAndTransposeAreStableSorts) {
  Random random(21);
  for (const int32_t dtype : {MOLFUSE_I32, MOLFUSE_I64}) {
    for (const int64_t gap : {0, 3}) {
      const int64_t nodes = 12;
      const Edges edges = batch_edges(random, 2, 6, 25);
      const int64_t count = static_cast<int64_t>(edges.size());
      TestTensor from(MOLFUSE_I32, {count, 1}, {}, 2), to(MOLFUSE_I64, {count}), order(dtype, {count});
      from.fill([&](int64_t n) { return static_cast<double>(edges[static_cast<size_t>(n)].first); });
      to.fill([&](int64_t n) { return static_cast<double>(edges[static_cast<size_t>(n)].second); });
      Graph graph(dtype, nodes, edges, gap);
      molfuse_graph view = graph.view();
      const molfuse_tensor from_view = Graph::line(from), to_view = to.view(), order_view = order.view();
      ASSERT_EQ(molfuse_graph_from_edges(&from_view, &to_view, nodes, &view, &order_view, nullptr), MOLFUSE_OK) << molfuse_last_error();
      for (TestTensor* t : {&graph.row_ptr, &graph.source, &graph.row_ptr_t, &graph.target, &graph.edge_id}) EXPECT_TRUE(t->unharmed());

      std::vector<int64_t> by_target(edges.size());
      std::iota(by_target.begin(), by_target.end(), 0);
      auto edge = [&](int64_t n) { return edges[static_cast<size_t>(n)]; };
      std::stable_sort(by_target.begin(), by_target.end(), [&](int64_t a, int64_t b) { return edge(a).second < edge(b).second; });
      for (int64_t e = 0; e < count; ++e) {
        EXPECT_EQ(order[e], by_target[static_cast<size_t>(e)]);
        EXPECT_EQ(graph.source[e], edge(by_target[static_cast<size_t>(e)]).first);
      }
      for (int64_t v = 0; v <= nodes; ++v) {
        EXPECT_EQ(graph.row_ptr[v], std::count_if(edges.begin(), edges.end(), [&](const auto& x) { return x.second < v; }));
        EXPECT_EQ(graph.row_ptr_t[v], std::count_if(edges.begin(), edges.end(), [&](const auto& x) { return x.first < v; }));
      }
      std::vector<int64_t> by_source(edges.size());
      std::iota(by_source.begin(), by_source.end(), 0);
      std::stable_sort(by_source.begin(), by_source.end(), [&](int64_t a, int64_t b) { return graph.source[a] < graph.source[b]; });
      for (int64_t p = 0; p < count; ++p) {
        EXPECT_EQ(graph.edge_id[p], by_source[static_cast<size_t>(p)]);
        EXPECT_EQ(graph.target[p], edge(by_target[static_cast<size_t>(by_source[static_cast<size_t>(p)])]).second);
      }
    }
  }
}

TEST(Graph, EmptyGraphsAreSorted) {
  Graph none(MOLFUSE_I64, 0, {});
  EXPECT_EQ(none.row_ptr[0], 0);
  EXPECT_EQ(none.row_ptr_t[0], 0);
  Graph isolated(MOLFUSE_I32, 3, {});
  EXPECT_EQ(isolated.row_ptr_t.values(), std::vector<double>(4, 0.0));
}

TEST(Graph, BadInputIsRefused) {
  TestTensor from = TestTensor::of(MOLFUSE_I64, {3}, {0, 1, 2}), to = TestTensor::of(MOLFUSE_I64, {3}, {1, 1, 0});
  Graph graph(MOLFUSE_I64, 3, {{0, 1}, {1, 1}, {2, 0}});
  const molfuse_graph view = graph.view();
  const molfuse_tensor from_view = from.view(), to_view = to.view();
  auto edges = [&](molfuse_tensor source, molfuse_tensor target, int64_t nodes, molfuse_graph g, std::initializer_list<const char*> parts) {
    expect_invalid(molfuse_graph_from_edges(&source, &target, nodes, &g, nullptr, nullptr), parts);
  };
  molfuse_tensor wrong = from_view;
  wrong.dtype = MOLFUSE_F32;
  edges(wrong, to_view, 3, view, {"edge_source", "f32"});
  wrong = to_view;
  wrong.size[0] = 2;
  edges(from_view, wrong, 3, view, {"edge_target", "[3]", "[2]"});
  edges(from_view, to_view, -1, view, {"num_nodes", "-1"});
  edges(from_view, to_view, 4, view, {"row_ptr", "[5]", "[4]"});
  molfuse_graph g = view;
  g.source.size[0] = 2;
  edges(from_view, to_view, 3, g, {"source", "[3]", "[2]"});
  g = view;
  g.source.dtype = MOLFUSE_I32;
  edges(from_view, to_view, 3, g, {"source", "int64", "int32"});
  g = view;
  g.source.stride[0] = 0;
  edges(from_view, to_view, 3, g, {"source", "stride 0"});
  to.set(2, 3);
  edges(from_view, to_view, 3, view, {"edge_target", "0..2", "got 3", "position 2"});
  {
    // An int32 entry of -2^31 is below 2^31 + 2 when both are taken as unsigned.
    TestTensor lowest = TestTensor::of(MOLFUSE_I32, {3}, {static_cast<double>(INT32_MIN), 0, 0});
    const int64_t many = (int64_t{1} << 31) + 2;
    g = view;
    g.row_ptr.size[0] = many + 1;
    const molfuse_tensor lowest_view = lowest.view();
    expect_status(molfuse_graph_from_edges(&lowest_view, &lowest_view, many, &g, nullptr, nullptr), MOLFUSE_UNSUPPORTED, {"nodes", "2147483650"});
  }
  from.set(0, -2);
  edges(from_view, to_view, 3, view, {"edge_source", "got -2", "position 0"});
  expect_invalid(molfuse_graph_from_edges(nullptr, &to_view, 3, &view, nullptr, nullptr), {"edge_source", "NULL"});
  expect_invalid(molfuse_graph_from_edges(&from_view, nullptr, 3, &view, nullptr, nullptr), {"edge_target", "NULL"});
  expect_invalid(molfuse_graph_from_edges(&from_view, &to_view, 3, nullptr, nullptr, nullptr), {"graph", "NULL"});

  auto transpose = [&](const molfuse_graph& t, std::initializer_list<const char*> parts) { expect_invalid(molfuse_graph_transpose(&t, nullptr), parts); };
  g = view;
  g.row_ptr.size[0] = 0;
  transpose(g, {"row_ptr", "[V+1]"});
  g = view;
  g.target.size[0] = 2;
  transpose(g, {"target", "[3]", "[2]"});
  g = view;
  g.edge_id.dtype = MOLFUSE_I32;
  transpose(g, {"edge_id", "int64", "int32"});
  graph.source.set(1, 3);
  transpose(view, {"source", "0..2", "got 3", "position 1"});
  graph.source.set(1, 1);
  graph.row_ptr.set(1, 7);
  transpose(view, {"row_ptr", "ascending"});
  expect_invalid(molfuse_graph_transpose(nullptr, nullptr), {"graph", "NULL"});
}

}  // namespace
