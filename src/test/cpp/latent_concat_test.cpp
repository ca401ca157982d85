// SPDX-License-Identifier: Apache-2.0
#include "molfuse/latent_concat.h"

#include "support.h"

using namespace molfuse_test;

namespace {

struct Case {
  int32_t dtype = MOLFUSE_F32, index = MOLFUSE_I64;
  std::vector<int64_t> graphs = {3, 0, 5, 1};  // nodes of each; pooled form: only their number counts
  std::vector<int64_t> widths = {16, 7, 33};
  bool pooled = false;
  int layout = 0;  // 0 packed, 1 rows with gaps, 2 columns outermost
  int64_t offset = 0, spare = 0;  // columns of the row before and after those used
  int threads = 2;  // small work would not get them by itself
};

struct Problem {
  Case c;
  int64_t nodes = 0, width = 0;
  TestTensor graph_ptr;
  std::vector<TestTensor> layers;
  TestTensor grad_out;

  explicit Problem(const Case& given, uint64_t seed = 1) : c(given) {
    Random random(seed);
    const int64_t B = static_cast<int64_t>(c.graphs.size());
    graph_ptr = TestTensor(c.index, {B + 1});
    graph_ptr.set(0, 0);
    for (int64_t b = 0; b < B; ++b) graph_ptr.set(b + 1, static_cast<double>(nodes += c.graphs[static_cast<size_t>(b)]));
    if (c.pooled) nodes = B;
    for (const int64_t w : c.widths) {
      layers.push_back(TestTensor::random(random, c.dtype, {nodes, w}, order(), gap()));
      width += w;
    }
    grad_out = TestTensor::random(random, c.dtype, row_sizes(), order(), gap());
  }
  std::vector<int> order() const { return c.layout == 2 ? std::vector<int>{1, 0} : std::vector<int>{}; }
  int64_t gap() const { return c.layout == 0 ? 0 : 3; }
  int64_t graphs() const { return static_cast<int64_t>(c.graphs.size()); }
  std::vector<int64_t> row_sizes() const { return {graphs(), c.offset + width + c.spare}; }
  int64_t begin(int64_t b) const { return c.pooled ? b : static_cast<int64_t>(graph_ptr[b]); }
  int64_t end(int64_t b) const { return c.pooled ? b + 1 : static_cast<int64_t>(graph_ptr[b + 1]); }

  std::vector<molfuse_tensor> views() {
    std::vector<molfuse_tensor> list;
    for (TestTensor& layer : layers) list.push_back(layer.view());
    return list;
  }
  molfuse_latent_concat_args args(const std::vector<molfuse_tensor>& list) {
    auto a = zeroed<molfuse_latent_concat_args>();
    a.num_layers = static_cast<int64_t>(list.size());
    a.layers = list.data();
    if (!c.pooled) a.graph_ptr = graph_ptr.view();
    a.column_offset = c.offset;
    return a;
  }
  Execution execution() const {
    return execution_here(c.threads);
  }

  /// Columns outside offset .. offset+width-1 hold the poison's NaN. With rounding: sums in the accumulator type in order of nodes.
  std::vector<double> formula(bool rounding) const {
    const int32_t wide = c.dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32;
    const int64_t columns = row_sizes()[1];
    std::vector<double> out(static_cast<size_t>(graphs() * columns), std::numeric_limits<double>::quiet_NaN());
    for (int64_t b = 0; b < graphs(); ++b) {
      int64_t column = c.offset;
      for (const TestTensor& layer : layers) {
        const int64_t w = layer.sizes()[1];
        for (int64_t n = 0; n < w; ++n, ++column) {
          double sum = 0;
          for (int64_t v = begin(b); v < end(b); ++v) {
            sum += layer[v * w + n];
            if (rounding) sum = round_to(wide, sum);
          }
          if (end(b) > begin(b)) sum /= static_cast<double>(end(b) - begin(b));
          out[static_cast<size_t>(b * columns + column)] = rounding ? round_to(c.dtype, sum) : sum;
        }
      }
    }
    return out;
  }

  std::vector<double> gradient_formula(size_t layer) const {
    const int64_t columns = row_sizes()[1], w = c.widths[layer];
    int64_t column = c.offset;
    for (size_t l = 0; l < layer; ++l) column += c.widths[l];
    std::vector<double> gradient(static_cast<size_t>(nodes * w));
    for (int64_t b = 0; b < graphs(); ++b) {
      for (int64_t v = begin(b); v < end(b); ++v) {
        for (int64_t n = 0; n < w; ++n) {
          gradient[static_cast<size_t>(v * w + n)] = grad_out[b * columns + column + n] / static_cast<double>(end(b) - begin(b));
        }
      }
    }
    return gradient;
  }

  std::vector<double> forward() {
    TestTensor out(c.dtype, row_sizes(), order(), gap());
    const auto list = views();
    auto a = args(list);
    a.out = out.view();
    const auto e = execution();
    EXPECT_EQ(molfuse_latent_concat_forward(&a, &e), MOLFUSE_OK) << molfuse_last_error();
    EXPECT_TRUE(out.unharmed());
    return out.values();
  }

  std::vector<std::vector<double>> backward() {
    std::vector<TestTensor> gradients;
    std::vector<molfuse_tensor> sizes = views(), list;
    for (TestTensor& layer : layers) gradients.emplace_back(c.dtype, layer.sizes(), order(), gap());
    for (TestTensor& gradient : gradients) list.push_back(gradient.view());
    for (molfuse_tensor& t : sizes) t.data = nullptr;  // only sizes count
    auto a = args(sizes);
    a.grad_out = grad_out.view();
    a.grad_layers = list.data();
    const auto e = execution();
    EXPECT_EQ(molfuse_latent_concat_backward(&a, &e), MOLFUSE_OK) << molfuse_last_error();
    std::vector<std::vector<double>> values;
    for (const TestTensor& gradient : gradients) {
      EXPECT_TRUE(gradient.unharmed());
      values.push_back(gradient.values());
    }
    return values;
  }
};

void expect_close(const std::vector<double>& got, const std::vector<double>& eager, const std::vector<double>& reference, double atol) {
  ASSERT_EQ(got.size(), reference.size());
  EXPECT_TRUE(accepted(got, eager, reference, atol));
}

void expect_right(const Case& c) {
  Problem problem(c);
  at_each_level([&](const std::string&) {
    // Within rounding to the type, once, of a correct sum: no tolerance beyond the unfused result's own error is needed in f32.
    const double atol = c.pooled ? 0 : c.dtype == MOLFUSE_F64 ? 1e-15 : 1e-7;
    expect_close(problem.forward(), problem.formula(true), problem.formula(false), atol);
    const auto gradients = problem.backward();
    for (size_t l = 0; l < gradients.size(); ++l) {
      const std::vector<double> reference = problem.gradient_formula(l);
      std::vector<double> rounded = reference;
      for (double& x : rounded) x = round_to(c.dtype, x);
      expect_close(gradients[l], rounded, reference, 0);
    }
  });
}

TEST(LatentConcat, MatchesFormulaInAllTypesSizesAndLayouts) {
  for (const int32_t dtype : kFloatTypes) {
    for (const int layout : {0, 1, 2}) {
      for (const bool pooled : {false, true}) {
        for (const auto& widths : {std::vector<int64_t>{16, 7, 33}, {1}, {64, 64}, {2049, 3}, {5, 0, 9}}) {
          Case c;
          c.dtype = dtype;
          c.index = widths.size() == 2 ? MOLFUSE_I32 : MOLFUSE_I64;
          c.layout = layout;
          c.pooled = pooled;
          c.widths = widths;
          SCOPED_TRACE(std::string(molfuse_dtype_name(dtype)) + " layout " + std::to_string(layout) + (pooled ? " pooled" : "") + " first width " +
                       std::to_string(widths[0]));
          expect_right(c);
        }
      }
    }
  }
}

TEST(LatentConcat, MatchesFormulaForAllSmallNumbersOfNodes) {
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
    Case c;
    c.dtype = dtype;
    c.graphs.clear();
    for (int64_t n = 0; n <= 13; ++n) c.graphs.push_back(n);
    c.graphs.push_back(1000);
    c.widths = {19, 128};
    expect_right(c);
  }
}

TEST(LatentConcat, TheIntoFormWritesItsSlotOnly) {
  for (const bool pooled : {false, true}) {
    for (const int layout : {0, 1, 2}) {
      Case c;
      c.widths = {21};
      c.offset = 5;
      c.spare = 9;
      c.pooled = pooled;
      c.layout = layout;
      SCOPED_TRACE(std::string(pooled ? "pooled" : "nodes") + " layout " + std::to_string(layout));
      expect_right(c);
    }
  }
}

TEST(LatentConcat, SlotsFilledOneByOneEqualOneCall) {
  Case c;
  Problem problem(c);
  const std::vector<double> whole = problem.forward();
  TestTensor out(c.dtype, problem.row_sizes());
  int64_t column = 0;
  for (TestTensor& layer : problem.layers) {
    const std::vector<molfuse_tensor> list = {layer.view()};
    auto a = problem.args(list);
    a.out = out.view();
    a.column_offset = column;
    ASSERT_EQ(molfuse_latent_concat_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    column += layer.sizes()[1];
  }
  EXPECT_EQ(out.values(), whole);
}

TEST(LatentConcat, LargeGradientsWrittenPastTheCachesAreRight) {
  MOLFUSE_CPU_ONLY();
  // Above the size from which stores bypass the caches; odd widths put rows at every alignment.
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_F16}) {
    const size_t element = molfuse_dtype_size(dtype);
    const int64_t nodes = 3001, width = static_cast<int64_t>((size_t{36} << 20) / element) / nodes | 1;
    TestTensor graph_ptr = TestTensor::of(MOLFUSE_I64, {5}, {0, 1700, 1701, 1701, 3001});
    Random random(3);
    TestTensor grad_out = TestTensor::random(random, dtype, {4, width});
    std::vector<unsigned char> memory(static_cast<size_t>(nodes * width) * element + element);
    auto gradient = zeroed<molfuse_latent_concat_args>().out;
    gradient.data = memory.data() + element;
    gradient.dtype = dtype;
    gradient.ndim = 2;
    gradient.size[0] = nodes;
    gradient.size[1] = gradient.stride[0] = width;
    gradient.stride[1] = 1;
    auto a = zeroed<molfuse_latent_concat_args>();
    a.num_layers = 1;
    a.layers = &gradient;
    a.grad_layers = &gradient;
    a.graph_ptr = graph_ptr.view();
    a.grad_out = grad_out.view();
    at_each_level([&](const std::string&) {
      std::fill(memory.begin(), memory.end(), static_cast<unsigned char>(0xFF));
      ASSERT_EQ(molfuse_latent_concat_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
      std::vector<unsigned char> row(static_cast<size_t>(width) * element);
      for (int64_t b = 0; b < 4; ++b) {
        const int64_t begin = static_cast<int64_t>(graph_ptr[b]), end = static_cast<int64_t>(graph_ptr[b + 1]);
        for (int64_t n = 0; n < width; ++n) {
          encode(dtype, grad_out[b * width + n] / static_cast<double>(end - begin), row.data() + static_cast<size_t>(n) * element);
        }
        for (int64_t v = begin; v < end; ++v) {
          ASSERT_EQ(std::memcmp(memory.data() + element + static_cast<size_t>(v * width) * element, row.data(), row.size()), 0) << v;
        }
      }
      for (size_t n = 0; n < element; ++n) ASSERT_EQ(memory[n], 0xFF);
    });
  }
}

TEST(LatentConcat, GradientsAreThoseOfFiniteDifferences) {
  MOLFUSE_CPU_ONLY();
  Case c;
  c.dtype = MOLFUSE_F64;
  c.widths = {3, 2};
  Problem problem(c);
  const auto gradients = problem.backward();
  auto loss = [&] {
    const std::vector<double> out = problem.forward();
    double sum = 0;
    for (size_t n = 0; n < out.size(); ++n) sum += out[n] * problem.grad_out[static_cast<int64_t>(n)];
    return sum;
  };
  for (size_t l = 0; l < gradients.size(); ++l) {
    for (int64_t n = 0; n < problem.layers[l].count(); ++n) {
      const double x = problem.layers[l][n], step = 1e-4;
      problem.layers[l].set(n, x + step);
      const double up = loss();
      problem.layers[l].set(n, x - step);
      const double down = loss();
      problem.layers[l].set(n, x);
      EXPECT_NEAR((up - down) / (2 * step), gradients[l][static_cast<size_t>(n)], 1e-9);
    }
  }
}

TEST(LatentConcat, ResultsDoNotDependOnTheNumberOfThreads) {
  MOLFUSE_CPU_ONLY();
  for (const bool many_graphs : {false, true}) {
    Case c;
    c.graphs = many_graphs ? std::vector<int64_t>(200, 7) : std::vector<int64_t>{900};
    c.widths = {300, 77};
    c.threads = 1;
    const std::vector<double> out = Problem(c).forward();
    const auto gradients = Problem(c).backward();
    for (const int threads : {2, 3, 7}) {
      c.threads = threads;
      EXPECT_EQ(Problem(c).forward(), out);
      EXPECT_EQ(Problem(c).backward(), gradients);
    }
  }
}

TEST(LatentConcat, EmptyBatches) {
  for (const bool pooled : {false, true}) {
    Case c;
    c.pooled = pooled;
    c.graphs = {};
    EXPECT_TRUE(Problem(c).forward().empty());
    EXPECT_TRUE(Problem(c).backward()[0].empty());
  }
  Case c;
  c.graphs = {0, 0, 0};
  Problem problem(c);
  auto list = problem.views();
  for (molfuse_tensor& t : list) t.data = nullptr;  // no nodes, no memory
  TestTensor out(c.dtype, problem.row_sizes());
  auto a = problem.args(list);
  a.out = out.view();
  ASSERT_EQ(molfuse_latent_concat_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(out.values(), std::vector<double>(static_cast<size_t>(out.count()), 0.0));
}

TEST(LatentConcat, AnAbsentGradientIsSkipped) {
  Case c;
  Problem problem(c);
  const auto all = problem.backward();
  TestTensor last(c.dtype, problem.layers[2].sizes());
  const auto sizes = problem.views();
  std::vector<molfuse_tensor> list(3, zeroed<molfuse_latent_concat_args>().out);
  list[2] = last.view();
  auto a = problem.args(sizes);
  a.grad_out = problem.grad_out.view();
  a.grad_layers = list.data();
  ASSERT_EQ(molfuse_latent_concat_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(last.values(), all[2]);
}

TEST(LatentConcat, ABroadcastGradientIsRead) {
  // What the gradient of a sum looks like: one element seen at every place.
  Case c;
  Problem problem(c);
  problem.grad_out.fill([](int64_t) { return 2.5; });
  const auto expected = problem.backward();
  TestTensor one = TestTensor::of(c.dtype, {1}, {2.5});
  molfuse_tensor view = problem.grad_out.view();
  view.data = one.view().data;
  view.stride[0] = view.stride[1] = 0;
  TestTensor gradient(c.dtype, problem.layers[0].sizes());
  const auto sizes = problem.views();
  std::vector<molfuse_tensor> list(3, zeroed<molfuse_latent_concat_args>().out);
  list[0] = gradient.view();
  auto a = problem.args(sizes);
  a.grad_out = view;
  a.grad_layers = list.data();
  ASSERT_EQ(molfuse_latent_concat_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
  EXPECT_EQ(gradient.values(), expected[0]);
}

TEST(LatentConcat, NotANumberStaysInItsColumnAndGraph) {
  Case c;
  c.graphs = {6, 6};
  c.widths = {20};
  Problem problem(c);
  problem.layers[0].set(2 * 20 + 3, std::numeric_limits<double>::quiet_NaN());
  at_each_level([&](const std::string&) {
    const std::vector<double> out = problem.forward();
    for (size_t n = 0; n < out.size(); ++n) EXPECT_EQ(std::isnan(out[n]), n == 3) << n;
  });
}

// Values in device memory are seen by the kernel only: results are then NaN, and the next call says why.
TEST(LatentConcat, WrongPointersInDeviceMemoryAreReportedByTheNextCall) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  const std::vector<std::pair<std::vector<double>, std::vector<const char*>>> cases = {
      {{0, 3, 2, 8, 9}, {"graph_ptr", "got 2", "position 2"}},
      {{0, 3, 3, 8, 10}, {"graph_ptr", "got 10", "position 4"}},
      {{-1, 3, 3, 8, 9}, {"graph_ptr", "got -1", "position 0"}},
      {{0, 3, 3, 1e9, 9}, {"graph_ptr", "position"}}};
  for (const auto& [pointers, parts] : cases) {
    Case c;
    Problem problem(c);
    problem.graph_ptr.fill([&, &pointers = pointers](int64_t n) { return pointers[static_cast<size_t>(n)]; });
    TestTensor out(c.dtype, problem.row_sizes());
    const auto list = problem.views();
    auto a = problem.args(list);
    a.out = out.view();
    ASSERT_EQ(molfuse_latent_concat_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    EXPECT_TRUE(out.unharmed());
    EXPECT_EQ(molfuse_latent_concat_forward(&a, here()), MOLFUSE_INVALID_ARGUMENT);
    for (const char* part : parts) EXPECT_NE(std::string(molfuse_last_error()).find(part), std::string::npos) << molfuse_last_error();
    Problem right(c);
    right.forward();  // the report is gone
  }
}

TEST(LatentConcat, LargeGraphsAreSharedOut) {
  Case c;
  c.graphs = {700, 1};
  c.widths = {24};
  expect_right(c);
}

TEST(LatentConcat, ManyLayersTakeSeveralLaunches) {
  Case c;
  c.widths = std::vector<int64_t>(70, 8);
  expect_right(c);
}

TEST(LatentConcat, BadInputIsRefusedBeforeAnyWrite) {
  Case c;
  Problem problem(c);
  using Args = molfuse_latent_concat_args;
  TestTensor out(c.dtype, problem.row_sizes()), gradient(c.dtype, problem.layers[1].sizes());
  const std::vector<unsigned char> untouched = out.bytes(), poison = gradient.bytes();
  const auto good_list = problem.views();
  auto list = good_list;
  auto forward = [&](const std::function<void(Args&)>& change, std::initializer_list<const char*> parts) {
    list = good_list;
    auto a = problem.args(list);
    a.out = out.view();
    change(a);
    expect_invalid(molfuse_latent_concat_forward(&a, here()), parts);
    EXPECT_EQ(out.bytes(), untouched);
  };
  TestTensor pointers(MOLFUSE_I32, {5});
  auto rows = [&](std::vector<double> values) {
    pointers.fill([&](int64_t n) { return values[static_cast<size_t>(n)]; });
    return pointers.view();
  };
  forward([&](Args& a) { a.num_layers = 0; }, {"num_layers", ">= 1"});
  forward([&](Args& a) { a.layers = nullptr; }, {"layers", "NULL"});
  forward([&](Args&) { list[0].dtype = MOLFUSE_I64; }, {"layers[0]", "int64"});
  forward([&](Args&) { list[2].dtype = MOLFUSE_F16; }, {"layers[2]", "f32", "f16"});
  forward([&](Args&) { list[0].ndim = 3; }, {"layers[0]", "[V,C]"});
  forward([&](Args&) { list[1].size[0] = 8; }, {"layers[1]", "[9,*]", "[8,7]"});
  forward([&](Args&) { list[1].data = nullptr; }, {"layers[1]", "required"});
  forward([&](Args& a) { a.graph_ptr.dtype = MOLFUSE_F32; }, {"graph_ptr", "f32"});
  forward([&](Args& a) { a.graph_ptr.size[0] = 0; }, {"graph_ptr"});
  if (!kOnDevice) {
    forward([&](Args& a) { a.graph_ptr = rows({0, 3, 2, 8, 9}); }, {"graph_ptr", "2 after 3", "position 2"});
    forward([&](Args& a) { a.graph_ptr = rows({0, 3, 3, 8, 10}); }, {"graph_ptr", "9", "10"});
    forward([&](Args& a) { a.graph_ptr = rows({-1, 3, 3, 8, 9}); }, {"graph_ptr", "-1"});
  }
  forward([&](Args& a) { a.column_offset = -1; }, {"column_offset", "-1"});
  forward([&](Args& a) { a.column_offset = INT64_MAX; }, {"column_offset", "9223372036854775807"});
  forward([&](Args& a) { a.column_offset = 1; }, {"out", "57 columns", "[4,56]"});
  forward([&](Args& a) { a.out.size[0] = 5; }, {"out", "[4,*]", "[5,56]"});
  forward([&](Args& a) { a.out.dtype = MOLFUSE_F64; }, {"out", "f64"});
  forward([&](Args& a) { a.out.data = nullptr; }, {"out", "required"});
  forward([&](Args& a) { a.out.stride[0] = 0; }, {"out", "stride 0"});
  forward([&](Args& a) { a.struct_size = 1; }, {"struct_size"});
  expect_invalid(molfuse_latent_concat_forward(nullptr, nullptr), {"NULL"});

  std::vector<molfuse_tensor> gradients;
  auto backward = [&](const std::function<void(Args&)>& change, std::initializer_list<const char*> parts) {
    list = good_list;
    gradients.assign(3, zeroed<Args>().out);
    gradients[1] = gradient.view();
    auto a = problem.args(list);
    a.grad_out = problem.grad_out.view();
    a.grad_layers = gradients.data();
    change(a);
    expect_invalid(molfuse_latent_concat_backward(&a, here()), parts);
    EXPECT_EQ(gradient.bytes(), poison);
  };
  backward([&](Args& a) { a.grad_layers = nullptr; }, {"grad_layers", "NULL"});
  backward([&](Args& a) { a.grad_out.data = nullptr; }, {"grad_out", "required"});
  backward([&](Args& a) { a.grad_out.size[1] = 55; }, {"grad_out", "56 columns", "[4,55]"});
  backward([&](Args&) { gradients[1].size[1] = 8; }, {"grad_layers[1]", "[9,7]", "[9,8]"});
  backward([&](Args&) { gradients[1].dtype = MOLFUSE_BF16; }, {"grad_layers[1]", "bf16"});
  backward([&](Args&) { gradients[1].stride[0] = 0; }, {"grad_layers[1]", "stride 0"});
  backward([&](Args&) { list[2].size[0] = 3; }, {"layers[2]", "[9,*]"});
  backward([&](Args&) {
    list[0].size[1] = INT64_MAX;  // in backward nothing of it is read
    list[0].data = nullptr;
  }, {"layers[0]", "too many"});
}

}  // namespace
