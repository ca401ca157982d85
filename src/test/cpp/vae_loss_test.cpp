// SPDX-License-Identifier: Apache-2.0
#include "molfuse/vae_loss.h"

#include "support.h"

using namespace molfuse_test;

namespace {

enum class Layout { token_major, class_second, odd_strides, time_major };
const char* const kLayoutNames[] = {"[B,T,K]", "[B,K,T]", "odd strides", "[T,B,K]"};

struct Case {
  int32_t dtype = MOLFUSE_F32;
  Layout layout = Layout::token_major;
  int32_t reduction = MOLFUSE_REDUCTION_MEAN;
  int64_t batch = 3, length = 7, classes = 11, latent = 5;
  int64_t pad = 0;
  bool wide_latent = false;  // mean and log_var in the accumulator type
  double beta = 0.7, spread = 2, offset = 0;
  int threads = 2;  // small work would not get them by itself
  bool in_place = false;
  // Elements between rows, between samples, and before the first; gap -1: some.
  int64_t gap = -1, outer_gap = 0, lead = 0;

  std::string text() const {
    return std::string(molfuse_dtype_name(dtype)) + " " + kLayoutNames[static_cast<int>(layout)] + " reduction " + std::to_string(reduction) +
           " B" + std::to_string(batch) + " T" + std::to_string(length) + " K" + std::to_string(classes) + " L" + std::to_string(latent) + " gaps " +
           std::to_string(gap) + " " + std::to_string(outer_gap) + " " + std::to_string(lead) + (in_place ? " in place" : "");
  }
};

/// All results of forward and backward, as f64 in row-major order ([B,T,K] for grad_logits).
struct Results {
  std::vector<double> stats, nll, lse, kl_sample, grad_logits, grad_mean, grad_log_var, fused_logits;
  double token_scale = 0, latent_scale = 0;  // the largest factors of the gradients
};

struct Problem {
  Case c;
  TestTensor logits, targets, mean, log_var, grad_stats, grad_nll, grad_kl;

  Problem(const Case& given, uint64_t seed) : c(given) {
    Random random(seed);
    logits = like_logits();
    logits.fill([&](int64_t) { return c.offset + c.spread * normal(random); });
    targets = TestTensor(MOLFUSE_I64, {c.batch, c.length}, {1, 0}, 1);
    targets.fill([&](int64_t) { return static_cast<double>(between(random, 0, 3) == 0 ? c.pad : between(random, 0, c.classes - 1)); });
    const int32_t latent_type = c.wide_latent ? wide() : c.dtype;
    if (c.latent >= 0) {
      mean = TestTensor::random(random, latent_type, {c.batch, c.latent}, {1, 0}, 1);
      log_var = TestTensor::random(random, latent_type, {c.batch, c.latent}, {}, 2, 3);
    }
    grad_stats = TestTensor(wide(), {MOLFUSE_VAE_STATS});
    // Of one sign: they are added up to a factor of the gradient, and where they cancel the rounding of perplexity is all that is left.
    grad_stats.fill([&](int64_t n) { return n <= MOLFUSE_VAE_PERPLEXITY ? std::fabs(normal(random)) : std::nan(""); });
    grad_stats.set(MOLFUSE_VAE_PERPLEXITY, 0.01 * std::fabs(normal(random)));
    grad_nll = TestTensor::random(random, wide(), {c.batch, c.length}, {1, 0}, 3);
    grad_kl = TestTensor::random(random, wide(), {c.batch}, {}, 2);
  }

  int32_t wide() const { return c.dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32; }
  bool second() const { return c.layout == Layout::class_second; }
  bool none() const { return c.reduction == MOLFUSE_REDUCTION_NONE; }

  TestTensor like_logits() const {
    const auto gap = [&](int64_t other) { return c.gap < 0 ? other : c.gap; };
    if (second()) return TestTensor(c.dtype, {c.batch, c.classes, c.length}, {}, gap(c.length % 2), c.outer_gap, c.lead);
    if (c.layout == Layout::odd_strides) return TestTensor(c.dtype, {c.batch, c.length, c.classes}, {2, 0, 1}, gap(3), c.outer_gap, c.lead);
    const std::vector<int> order = c.layout == Layout::time_major ? std::vector<int>{1, 0, 2} : std::vector<int>{};
    return TestTensor(c.dtype, {c.batch, c.length, c.classes}, order, gap(c.classes % 3), c.outer_gap, c.lead);
  }
  int64_t logit_index(int64_t b, int64_t t, int64_t k) const {
    return second() ? (b * c.classes + k) * c.length + t : (b * c.length + t) * c.classes + k;
  }
  bool masked(int64_t b, int64_t t) const { return targets[b * c.length + t] == static_cast<double>(c.pad); }

  molfuse_vae_loss_args args() {
    auto a = zeroed<molfuse_vae_loss_args>();
    a.logits = logits.view();
    a.class_second = second();
    a.targets = targets.view();
    a.pad_index = c.pad;
    if (c.latent >= 0) {
      a.mean = mean.view();
      a.log_var = log_var.view();
    }
    a.beta = c.beta;
    a.reduction = c.reduction;
    return a;
  }

  Results run() {
    auto a = args();
    const auto execution = execution_here(c.threads);
    TestTensor stats(wide(), {MOLFUSE_VAE_STATS}, {}, 1), lse(wide(), {c.batch, c.length}, {1, 0}, 2), nll(wide(), {c.batch, c.length}, {}, 1),
        kl_sample(wide(), {c.batch});
    a.stats = stats.view();
    a.row_lse = lse.view();
    a.nll = nll.view();
    if (c.latent >= 0) a.kl_sample = kl_sample.view();
    TestTensor fused = like_logits();
    if (!none()) a.grad_logits = fused.view();
    EXPECT_EQ(molfuse_vae_loss_forward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    EXPECT_TRUE(fused.unharmed());
    if (none()) {
      a.grad_nll = grad_nll.view();
      a.grad_kl_sample = grad_kl.view();
    } else {
      a.grad_stats = grad_stats.view();
    }
    TestTensor grad = like_logits(), memory = logits;
    TestTensor& grad_logits = c.in_place ? memory : grad;
    if (c.in_place) a.logits = memory.view();
    a.grad_logits = grad_logits.view();
    TestTensor grad_mean, grad_log_var;
    if (c.latent >= 0) {
      grad_mean = TestTensor(mean.dtype(), mean.sizes(), {1, 0}, 1);
      grad_log_var = TestTensor(mean.dtype(), mean.sizes(), {}, 3);
      a.grad_mean = grad_mean.view();
      a.grad_log_var = grad_log_var.view();
    }
    EXPECT_EQ(molfuse_vae_loss_backward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    for (const TestTensor* t : {&stats, &lse, &nll, &kl_sample, &grad_logits, &grad_mean, &grad_log_var}) EXPECT_TRUE(t->unharmed());
    Results r{stats.values(), nll.values(), lse.values(), kl_sample.values(), {}, {}, {}, {}};
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t t = 0; t < c.length; ++t) {
        for (int64_t k = 0; k < c.classes; ++k) {
          r.grad_logits.push_back(grad_logits[logit_index(b, t, k)]);
          if (!none()) r.fused_logits.push_back(fused[logit_index(b, t, k)]);
        }
      }
    }
    if (c.latent >= 0) {
      r.grad_mean = grad_mean.values();
      r.grad_log_var = grad_log_var.values();
    } else {
      r.kl_sample.clear();
    }
    return r;
  }

  /// The formulas, naively, in arithmetic of type F; gradients rounded to the types they are stored in.
  template <class F>
  Results formula() const {
    Results r;
    F nll_sum = 0, kl_sum = 0;
    int64_t count = 0, correct = 0;
    std::vector<F> log_prob(static_cast<size_t>(c.batch * c.length * c.classes));
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t t = 0; t < c.length; ++t) {
        F* row = &log_prob[static_cast<size_t>((b * c.length + t) * c.classes)];
        F largest = -std::numeric_limits<F>::infinity();
        int64_t best = 0;
        for (int64_t k = 0; k < c.classes; ++k) {
          row[k] = static_cast<F>(logits[logit_index(b, t, k)]);
          if (row[k] > largest) {
            largest = row[k];
            best = k;
          }
        }
        F total = 0;
        for (int64_t k = 0; k < c.classes; ++k) total += std::exp(row[k] - largest);
        const F log_total = std::log(total);
        for (int64_t k = 0; k < c.classes; ++k) row[k] = row[k] - largest - log_total;
        if (masked(b, t)) {
          r.nll.push_back(0);
          r.lse.push_back(0);
          continue;
        }
        const int64_t target = static_cast<int64_t>(targets[b * c.length + t]);
        ++count;
        correct += target == best;
        nll_sum += -row[target];
        r.nll.push_back(static_cast<double>(-row[target]));
        r.lse.push_back(static_cast<double>(largest + log_total));
      }
    }
    const F epsilon = static_cast<F>(1e-8), beta = static_cast<F>(c.beta), elements = static_cast<F>(c.batch * std::max<int64_t>(c.latent, 0));
    for (int64_t b = 0; b < c.batch && c.latent >= 0; ++b) {
      F sample = 0;
      for (int64_t l = 0; l < c.latent; ++l) {
        const F m = static_cast<F>(mean[b * c.latent + l]), lv = std::clamp(static_cast<F>(log_var[b * c.latent + l]), F{-20}, F{10});
        sample += F{-0.5} * (F{1} + lv - m * m - std::exp(lv));
      }
      kl_sum += sample;
      r.kl_sample.push_back(static_cast<double>(sample));
    }
    const bool mean_wanted = c.reduction == MOLFUSE_REDUCTION_MEAN;
    const F mean_nll = nll_sum / (static_cast<F>(count) + epsilon), perplexity = std::exp(mean_nll);
    const F recon = mean_wanted ? mean_nll : nll_sum, kl = mean_wanted && elements > 0 ? kl_sum / elements : kl_sum;
    r.stats = {static_cast<double>(recon + beta * kl), static_cast<double>(recon), static_cast<double>(kl), static_cast<double>(perplexity)};
    if (none()) r.stats.assign(4, 0.0);
    r.stats.push_back(static_cast<double>(count));
    r.stats.push_back(static_cast<double>(correct));

    auto upstream = [&](int n) { return static_cast<F>(grad_stats[n]); };
    const F per_token = F{1} / (static_cast<F>(count) + epsilon);
    F token_scale = upstream(MOLFUSE_VAE_TOTAL) + upstream(MOLFUSE_VAE_RECON);
    token_scale = mean_wanted ? (token_scale + upstream(MOLFUSE_VAE_PERPLEXITY) * perplexity) * per_token
                              : token_scale + upstream(MOLFUSE_VAE_PERPLEXITY) * perplexity * per_token;
    F latent_scale = beta * upstream(MOLFUSE_VAE_TOTAL) + upstream(MOLFUSE_VAE_KL);
    if (mean_wanted) latent_scale /= elements;
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int64_t t = 0; t < c.length; ++t) {
        const int64_t n = b * c.length + t;
        const F scale = none() ? static_cast<F>(grad_nll[n]) : token_scale;
        r.token_scale = std::max(r.token_scale, static_cast<double>(std::abs(scale)));
        for (int64_t k = 0; k < c.classes; ++k) {
          const F p = std::exp(log_prob[static_cast<size_t>(n * c.classes + k)]);
          const F gradient = (p - (static_cast<double>(k) == targets[n] ? F{1} : F{0})) * scale;
          r.grad_logits.push_back(masked(b, t) ? 0.0 : stored<F>(c.dtype, gradient));
          // What forward writes: for an upstream gradient of one, in f16 not divided by the number of tokens.
          const F one = p - (static_cast<double>(k) == targets[n] ? F{1} : F{0});
          const F unit = mean_wanted && c.dtype != MOLFUSE_F16 ? one * per_token : one;
          if (!none()) r.fused_logits.push_back(masked(b, t) ? 0.0 : stored<F>(c.dtype, unit));
        }
      }
      for (int64_t l = 0; l < c.latent; ++l) {
        const F scale = none() ? static_cast<F>(grad_kl[b]) : latent_scale;
        r.latent_scale = std::max(r.latent_scale, static_cast<double>(std::abs(scale)));
        const F lv = static_cast<F>(log_var[b * c.latent + l]);
        r.grad_mean.push_back(stored<F>(mean.dtype(), scale * static_cast<F>(mean[b * c.latent + l])));
        r.grad_log_var.push_back(lv < -20 || lv > 10 ? 0.0 : stored<F>(mean.dtype(), scale * F{0.5} * (std::exp(lv) - F{1})));
      }
    }
    return r;
  }
  /// What the result would be stored as: the reference (F = double) is not rounded.
  template <class F>
  static double stored(int32_t dtype, F value) {
    return sizeof(F) == 8 ? static_cast<double>(value) : round_to(dtype, static_cast<double>(value));
  }
};

double magnitude(const std::vector<double>& values) {
  double largest = 0;
  for (const double v : values) largest = std::max(largest, std::fabs(v));
  return largest;
}

/// terms: the size of the numbers that a result is a sum of. Rounding is relative to that, whatever cancels.
void expect_accepted(const char* name, const std::vector<double>& result, const std::vector<double>& eager, const std::vector<double>& reference,
                     int32_t dtype, double terms) {
  ASSERT_EQ(result.size(), reference.size()) << name;
  EXPECT_TRUE(accepted(result, eager, reference, small_atol(dtype) * std::max(terms, magnitude(reference)))) << name;
}

void check(const Case& c, uint64_t seed) {
  SCOPED_TRACE(c.text() + " seed " + std::to_string(seed));
  Problem problem(c, seed);
  const Results result = problem.run(), reference = problem.formula<double>();
  const Results eager = c.dtype == MOLFUSE_F64 ? reference : problem.formula<float>();
  const double logit = std::fabs(c.offset) + 3 * c.spread;
  for (size_t n = 0; n < MOLFUSE_VAE_STATS; ++n) {
    const double terms = n == MOLFUSE_VAE_PERPLEXITY ? logit * reference.stats[n] : n == MOLFUSE_VAE_KL ? 1 : logit;
    expect_accepted(("stats " + std::to_string(n)).c_str(), {result.stats[n]}, {eager.stats[n]}, {reference.stats[n]}, problem.wide(), terms);
  }
  EXPECT_EQ(result.stats[MOLFUSE_VAE_TOKEN_COUNT], reference.stats[MOLFUSE_VAE_TOKEN_COUNT]);
  EXPECT_EQ(result.stats[MOLFUSE_VAE_CORRECT], reference.stats[MOLFUSE_VAE_CORRECT]);
  const int32_t latent_type = c.wide_latent ? problem.wide() : c.dtype;
  expect_accepted("nll", result.nll, eager.nll, reference.nll, problem.wide(), logit);
  expect_accepted("row_lse", result.lse, eager.lse, reference.lse, problem.wide(), logit);
  expect_accepted("kl_sample", result.kl_sample, eager.kl_sample, reference.kl_sample, problem.wide(), 1);
  expect_accepted("grad_logits", result.grad_logits, eager.grad_logits, reference.grad_logits, c.dtype, reference.token_scale);
  const double unit = c.reduction == MOLFUSE_REDUCTION_MEAN && c.dtype != MOLFUSE_F16 ? 1 / (reference.stats[MOLFUSE_VAE_TOKEN_COUNT] + 1e-8) : 1;
  expect_accepted("grad_logits of forward", result.fused_logits, eager.fused_logits, reference.fused_logits, c.dtype,
                  reference.stats[MOLFUSE_VAE_TOKEN_COUNT] > 0 ? unit : 0);
  expect_accepted("grad_mean", result.grad_mean, eager.grad_mean, reference.grad_mean, latent_type, 0);
  expect_accepted("grad_log_var", result.grad_log_var, eager.grad_log_var, reference.grad_log_var, latent_type, reference.latent_scale);
}

Case random_case(Random& random) {
  const int64_t classes[] = {1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 33, 39, 40, 41, 63, 64, 65, 96, 130, 300, 515};
  const int64_t lengths[] = {1, 2, 3, 4, 5, 7, 9, 15, 16, 17, 30, 63, 64, 65, 127, 130};
  Case c;
  c.dtype = kFloatTypes[between(random, 0, static_cast<int64_t>(std::size(kFloatTypes)) - 1)];
  c.layout = static_cast<Layout>(between(random, 0, 2));
  c.reduction = static_cast<int32_t>(between(random, 0, 2));
  c.batch = between(random, 1, 4);
  c.length = lengths[between(random, 0, 15)];
  c.classes = classes[between(random, 0, 20)];
  c.latent = between(random, -1, 0) != 0 ? between(random, 1, 70) : -1;
  c.pad = between(random, 0, 1) != 0 ? 0 : -100;
  c.wide_latent = between(random, 0, 1) != 0;
  c.in_place = between(random, 0, 1) != 0;
  return c;
}

}  // namespace

TEST(VaeLoss, MatchesTheFormulaForRandomShapesTypesAndLayouts) {
  at_each_level([](const std::string&) {
    Random random(std::random_device{}());
    for (int n = 0; n < (kSlow ? 40 : 150); ++n) check(random_case(random), random());
  });
}

TEST(VaeLoss, TakesRowsLongerThanAChunk) {
  at_each_level([](const std::string&) {
    for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16, kOnDevice ? MOLFUSE_F16 : MOLFUSE_F64}) {
      for (const Layout layout : {Layout::token_major, Layout::class_second, Layout::odd_strides}) {
        Case c;
        c.dtype = dtype;
        c.layout = layout;
        c.length = 13;
        c.classes = kSlow ? 2053 : 8197;
        check(c, 3);
      }
    }
  });
}

namespace {

/// What a regime of the kernels must get right beside numbers: gradients in the logits' memory, and no trace of what padding holds.
void check_regime(Case c, uint64_t seed) {
  check(c, seed);
  SCOPED_TRACE(c.text());
  c.in_place = true;
  Problem problem(c, seed);
  const Results in_place = problem.run();
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t t = 0; t < c.length; ++t) {
      for (int64_t k = 0; k < c.classes && problem.masked(b, t); ++k) {
        problem.logits.set(problem.logit_index(b, t, k), k % 2 == 0 ? std::nan("") : std::numeric_limits<double>::infinity());
      }
    }
  }
  problem.c.in_place = false;
  const Results poisoned = problem.run();
  EXPECT_EQ(in_place.grad_logits, poisoned.grad_logits);
  EXPECT_EQ(in_place.stats, poisoned.stats);
  // A NaN, an infinity and a row of nothing but -inf spoil their own rows only.
  const double spoils[] = {std::nan(""), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  const int64_t tokens = c.batch * c.length, spoiled[] = {0, tokens / 2, tokens - 1};
  for (int n = 0; n < 3; ++n) {
    const int64_t b = spoiled[n] / c.length, t = spoiled[n] % c.length;
    problem.targets.set(spoiled[n], c.pad == 0 ? static_cast<double>(c.classes - 1) : 0.0);
    for (int64_t k = n == 2 ? 0 : c.classes - 1; k < c.classes; ++k) problem.logits.set(problem.logit_index(b, t, k), spoils[n]);
  }
  // (Not through perplexity, which is NaN now.) Of sum it is forward's gradient, of none backward's.
  problem.c.reduction = seed % 2 == 0 ? MOLFUSE_REDUCTION_SUM : MOLFUSE_REDUCTION_NONE;
  const Results wrong = problem.run();
  const std::vector<double>& gradient = problem.none() ? wrong.grad_logits : wrong.fused_logits;
  for (int64_t n = 0; n < tokens; ++n) {
    const bool bad = n == spoiled[0] || n == spoiled[1] || n == spoiled[2];
    EXPECT_EQ(std::isnan(wrong.nll[static_cast<size_t>(n)]), bad) << "token " << n;
    int64_t unexpected = 0;
    for (int64_t k = 0; k < c.classes; ++k) unexpected += std::isnan(gradient[static_cast<size_t>(n * c.classes + k)]) != bad;
    EXPECT_EQ(unexpected, 0) << "classes of token " << n << " of " << tokens;
  }
}

}  // namespace

// The numbers of classes at which the device's kernels change, in every layout that makes a difference to how memory is read.
TEST(VaeLoss, RowsOfEveryRegime) {
  struct Memory {
    Layout layout;
    int64_t gap, outer_gap, lead;
  };
  const Memory memories[] = {{Layout::token_major, 0, 0, 0}, {Layout::token_major, 0, 0, 3}, {Layout::token_major, 0, 5, 1},
                             {Layout::time_major, 0, 0, 1},  {Layout::time_major, 0, 8, 0},  {Layout::token_major, 8, 0, 0}};
  int turn = 0;
  for (const int64_t classes : {1, 32, 33, 40, 41, 48, 64, 65, 72, 128, 129, 256, 320, 321, 512, 513, 1023, 1024, 1025, 2048, 2051}) {
    for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16, MOLFUSE_F32, MOLFUSE_BF16}) {
      const Memory& memory = memories[(turn + turn / 6) % 6];  // every way meets both types
      Case c;
      c.dtype = dtype;
      c.layout = memory.layout;
      c.gap = memory.gap;
      c.outer_gap = memory.outer_gap;
      c.lead = memory.lead;
      c.batch = 2;
      c.length = classes < 100 ? 19 : 3;
      c.classes = classes;
      c.latent = -1;
      c.reduction = turn / 2 % 3;
      c.pad = classes > 1 && turn % 2 == 0 ? 0 : -100;
      check_regime(c, static_cast<uint64_t>(turn++));
    }
  }
}

TEST(VaeLoss, ColumnsOfEveryRegime) {
  struct Shape {
    int64_t length, classes, gap;
  };
  const Shape shapes[] = {{127, 40, 0}, {37, 40, 1}, {16, 39, 0}, {3, 41, 0}, {300, 5, 0}, {31, 300, 0}, {33, 700, 0}, {5, 1300, 0}, {9, 3001, 0}};
  int turn = 0;
  for (const Shape& shape : shapes) {
    for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
      Case c;
      c.dtype = dtype;
      c.layout = Layout::class_second;
      c.batch = shape.classes > 500 ? 1 : 2;
      c.latent = -1;
      c.length = shape.length;
      c.classes = shape.classes;
      c.gap = shape.gap;
      c.lead = turn % 4;
      c.reduction = turn % 3;
      c.pad = turn % 2 == 0 ? 0 : -100;
      check_regime(c, static_cast<uint64_t>(turn++));
    }
  }
}

#if defined(MOLFUSE_SIMT)
// Rows and tiles that do not fit the shared memory there is.
TEST(VaeLoss, LittleSharedMemory) {
  simt::Settings& settings = simt::settings();
  const size_t before = settings.max_shared;
  for (const size_t bytes : {size_t{12} << 10, size_t{40} << 10}) {
    settings.max_shared = bytes;
    int turn = 0;
    for (const Layout layout : {Layout::token_major, Layout::class_second}) {
      for (const int64_t classes : {130, 4097}) {
        for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
          Case c;
          c.dtype = dtype;
          c.layout = layout;
          c.gap = 0;
          c.batch = 1;
          c.latent = -1;
          c.length = classes == 130 ? 45 : 3;
          c.classes = classes;
          c.lead = turn % 2;
          check_regime(c, static_cast<uint64_t>(turn++));
        }
      }
    }
  }
  settings.max_shared = before;
}
#endif

TEST(VaeLoss, ManyTokensSpanTasks) {
  Case c;
  c.batch = 9;
  c.length = 127;
  c.classes = 39;
  for (const Layout layout : {Layout::token_major, Layout::class_second}) {
    c.layout = layout;
    check(c, 5);
  }
}

TEST(VaeLoss, LargeLogitsKeepTheirGradientsExact) {
  // The stored log-sum-exp is rounded to 1e-4 here; the gradient must not be.
  at_each_level([](const std::string&) {
    for (const Layout layout : {Layout::token_major, Layout::class_second, Layout::odd_strides}) {
      Case c;
      c.layout = layout;
      c.offset = 3000;
      c.classes = 40;
      check(c, 8);
    }
  });
}

TEST(VaeLoss, GradientsMatchFiniteDifferences) {
  MOLFUSE_CPU_ONLY();
  for (const int32_t reduction : {MOLFUSE_REDUCTION_MEAN, MOLFUSE_REDUCTION_SUM, MOLFUSE_REDUCTION_NONE}) {
    Case c;
    c.dtype = MOLFUSE_F64;
    c.reduction = reduction;
    c.batch = 2;
    c.length = 3;
    c.classes = 5;
    c.latent = 3;
    c.threads = 1;
    Problem problem(c, 17);
    const Results analytic = problem.run();
    auto objective = [&] {
      const Results r = problem.run();
      double value = 0;
      if (reduction == MOLFUSE_REDUCTION_NONE) {
        for (size_t n = 0; n < r.nll.size(); ++n) value += r.nll[n] * problem.grad_nll[static_cast<int64_t>(n)];
        for (size_t n = 0; n < r.kl_sample.size(); ++n) value += r.kl_sample[n] * problem.grad_kl[static_cast<int64_t>(n)];
      } else {
        for (int n = 0; n <= MOLFUSE_VAE_PERPLEXITY; ++n) value += r.stats[static_cast<size_t>(n)] * problem.grad_stats[n];
      }
      return value;
    };
    auto compare = [&](TestTensor& input, const std::vector<double>& gradient) {
      for (int64_t n = 0; n < input.count(); ++n) {
        const double at = input[n], step = 1e-5;
        input.set(n, at + step);
        const double above = objective();
        input.set(n, at - step);
        const double below = objective();
        input.set(n, at);
        EXPECT_NEAR((above - below) / (2 * step), gradient[static_cast<size_t>(n)], 1e-8 * (1 + std::fabs(gradient[static_cast<size_t>(n)])));
      }
    };
    compare(problem.logits, analytic.grad_logits);
    compare(problem.mean, analytic.grad_mean);
    compare(problem.log_var, analytic.grad_log_var);
  }
}

TEST(VaeLoss, MaskedPositionsNeverTouchTheResult) {
  at_each_level([](const std::string&) {
    for (const Layout layout : {Layout::token_major, Layout::class_second, Layout::odd_strides}) {
      for (const double poison : {std::nan(""), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
        Case c;
        c.layout = layout;
        c.length = 21;
        c.classes = 39;
        c.reduction = MOLFUSE_REDUCTION_SUM;
        Problem problem(c, 23);
        const Results clean = problem.run();
        for (int64_t b = 0; b < c.batch; ++b) {
          for (int64_t t = 0; t < c.length; ++t) {
            for (int64_t k = 0; k < c.classes && problem.masked(b, t); ++k) problem.logits.set(problem.logit_index(b, t, k), poison);
          }
        }
        const Results poisoned = problem.run();
        EXPECT_EQ(poisoned.stats, clean.stats);
        EXPECT_EQ(poisoned.nll, clean.nll);
        EXPECT_EQ(poisoned.lse, clean.lse);
        EXPECT_EQ(poisoned.grad_logits, clean.grad_logits);
        for (int64_t n = 0; n < c.batch * c.length; ++n) {
          if (problem.targets[n] != 0) continue;
          EXPECT_EQ(poisoned.nll[static_cast<size_t>(n)], 0);
          for (int64_t k = 0; k < c.classes; ++k) EXPECT_EQ(poisoned.grad_logits[static_cast<size_t>(n * c.classes + k)], 0);
        }
      }
    }
  });
}

TEST(VaeLoss, AllPaddingGivesZero) {
  at_each_level([](const std::string&) {
    for (const Layout layout : {Layout::token_major, Layout::class_second}) {
      for (const int32_t dtype : kFloatTypes) {
        Case c;
        c.dtype = dtype;
        c.layout = layout;
        c.latent = -1;
        Problem problem(c, 29);
        problem.targets.fill([](int64_t) { return 0.0; });
        const Results r = problem.run();
        EXPECT_EQ(r.stats, (std::vector<double>{0, 0, 0, 1, 0, 0}));
        EXPECT_EQ(magnitude(r.nll), 0);
        EXPECT_EQ(magnitude(r.grad_logits), 0);
      }
    }
  });
}

TEST(VaeLoss, NanLogitsGiveANanLoss) {
  at_each_level([](const std::string&) {
    for (const Layout layout : {Layout::token_major, Layout::class_second, Layout::odd_strides}) {
      for (const int64_t classes : {3, 39, 64, 5000}) {
        for (int64_t k : {int64_t{0}, classes / 2, classes - 1}) {
          Case c;
          c.layout = layout;
          c.classes = classes;
          c.length = 9;
          Problem problem(c, 31);
          problem.targets.set(2, 1);
          problem.logits.set(problem.logit_index(0, 2, k), std::nan(""));
          const Results r = problem.run();
          EXPECT_TRUE(std::isnan(r.stats[MOLFUSE_VAE_TOTAL]));
          EXPECT_TRUE(std::isnan(r.stats[MOLFUSE_VAE_RECON]));
          EXPECT_TRUE(std::isnan(r.nll[2]));
          EXPECT_FALSE(std::isnan(r.stats[MOLFUSE_VAE_KL]));
          EXPECT_FALSE(std::isnan(r.nll[1]));
        }
      }
    }
  });
}

TEST(VaeLoss, MinusInfinityMasksClasses) {
  at_each_level([](const std::string&) {
    for (const Layout layout : {Layout::token_major, Layout::class_second, Layout::odd_strides}) {
      for (const int64_t classes : {7, 39, 300, 9000}) {
        Case c;
        c.layout = layout;
        c.classes = classes;
        c.length = 6;
        Problem problem(c, 37);
        problem.targets.fill([&](int64_t n) { return static_cast<double>(classes - 1 - n % 3); });
        // A whole first chunk of a long row masked, or every other class.
        for (int64_t b = 0; b < c.batch; ++b) {
          for (int64_t t = 0; t < c.length; ++t) {
            for (int64_t k = 0; k < classes - 3; ++k) {
              if (classes > 5000 || k % 2 == 0) problem.logits.set(problem.logit_index(b, t, k), -std::numeric_limits<double>::infinity());
            }
          }
        }
        const Results r = problem.run(), reference = problem.formula<double>(), eager = problem.formula<float>();
        EXPECT_TRUE(accepted(r.nll, eager.nll, reference.nll, 1e-6));
        EXPECT_TRUE(accepted(r.grad_logits, eager.grad_logits, reference.grad_logits, 1e-7));
        EXPECT_EQ(r.grad_logits[0], 0);
      }
    }
  });
}

TEST(VaeLoss, ArgmaxTiesGoToTheLowestClass) {
  at_each_level([](const std::string&) {
    for (const Layout layout : {Layout::token_major, Layout::class_second, Layout::odd_strides}) {
      for (const int32_t dtype : kFloatTypes) {
        Case c;
        c.dtype = dtype;
        c.layout = layout;
        c.length = 19;
        c.classes = 39;
        c.pad = -1;
        Problem problem(c, 41);
        Random random(42);
        problem.logits.fill([&](int64_t) { return static_cast<double>(between(random, 0, 6)); });
        const Results r = problem.run(), reference = problem.formula<double>();
        EXPECT_EQ(r.stats[MOLFUSE_VAE_CORRECT], reference.stats[MOLFUSE_VAE_CORRECT]);
        problem.logits.fill([](int64_t) { return 1.5; });
        problem.targets.fill([](int64_t n) { return static_cast<double>(n % 3); });
        EXPECT_EQ(problem.run().stats[MOLFUSE_VAE_CORRECT], (3 * 19 + 2) / 3);
      }
    }
  });
}

TEST(VaeLoss, InPlaceBackwardGivesTheSameBits) {
  at_each_level([](const std::string&) {
    Random random(43);
    for (int n = 0; n < 40; ++n) {
      Case c = random_case(random);
      if (n < 4) {
        c.classes = n < 2 ? 700 : 4099;
        c.layout = n % 2 == 0 ? Layout::class_second : Layout::token_major;
        c.length = 70;
      }
      SCOPED_TRACE(c.text());
      c.in_place = false;
      const Results apart = Problem(c, 7).run();
      c.in_place = true;
      const Results in_place = Problem(c, 7).run();
      EXPECT_EQ(apart.grad_logits, in_place.grad_logits);
    }
  });
}

TEST(VaeLoss, ResultsDoNotDependOnTheNumberOfThreads) {
  MOLFUSE_CPU_ONLY();
  at_each_level([](const std::string&) {
    for (const Layout layout : {Layout::token_major, Layout::class_second}) {
      Case c;
      c.layout = layout;
      c.batch = 13;
      c.length = 127;
      c.classes = 40;
      c.latent = 700;
      c.threads = 1;
      const Results one = Problem(c, 47).run();
      for (const int threads : {2, 3, 8}) {
        c.threads = threads;
        const Results many = Problem(c, 47).run();
        EXPECT_EQ(one.stats, many.stats);
        EXPECT_EQ(one.grad_logits, many.grad_logits);
        EXPECT_EQ(one.kl_sample, many.kl_sample);
      }
    }
  });
}

TEST(VaeLoss, ClampStopsTheGradientOutsideItsBoundsOnly) {
  at_each_level([](const std::string&) {
    Case c;
    c.batch = 1;
    c.latent = 8;
    Problem problem(c, 53);
    const double values[] = {-20.5, -20, -19.5, 0, 9.5, 10, 10.5, 700};
    problem.log_var.fill([&](int64_t n) { return values[n]; });
    const Results r = problem.run(), reference = problem.formula<double>();
    EXPECT_EQ(r.grad_log_var[0], 0);
    EXPECT_NE(r.grad_log_var[1], 0);
    EXPECT_NE(r.grad_log_var[5], 0);
    EXPECT_EQ(r.grad_log_var[6], 0);
    EXPECT_EQ(r.grad_log_var[7], 0);
    for (size_t n = 0; n < 8; ++n) EXPECT_NEAR(r.grad_log_var[n], reference.grad_log_var[n], 1e-5 * std::fabs(reference.grad_log_var[n]));
    EXPECT_NEAR(r.stats[MOLFUSE_VAE_KL], reference.stats[MOLFUSE_VAE_KL], 1e-5 * reference.stats[MOLFUSE_VAE_KL]);
  });
}

TEST(VaeLoss, AbsentUpstreamGradientsMeanZero) {
  for (const int32_t reduction : {MOLFUSE_REDUCTION_MEAN, MOLFUSE_REDUCTION_NONE}) {
    Case c;
    c.reduction = reduction;
    Problem problem(c, 59);
    auto a = problem.args();
    TestTensor stats(MOLFUSE_F32, {6}), lse(MOLFUSE_F32, {c.batch, c.length}), nll(MOLFUSE_F32, {c.batch, c.length}), kl(MOLFUSE_F32, {c.batch});
    a.stats = stats.view();
    a.row_lse = lse.view();
    a.nll = nll.view();
    a.kl_sample = kl.view();
    ASSERT_EQ(molfuse_vae_loss_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    TestTensor grad = problem.like_logits(), grad_mean(MOLFUSE_F32, problem.mean.sizes());
    a.grad_logits = grad.view();
    a.grad_mean = grad_mean.view();
    ASSERT_EQ(molfuse_vae_loss_backward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
    EXPECT_EQ(magnitude(grad.values()), 0);
    EXPECT_EQ(magnitude(grad_mean.values()), 0);
  }
}

TEST(VaeLoss, ZeroSizesAreFine) {
  for (const auto& [batch, length, latent] : {std::tuple<int64_t, int64_t, int64_t>{0, 5, 3}, {2, 0, 3}, {2, 5, 0}, {0, 0, 0}}) {
    for (const int32_t reduction : {MOLFUSE_REDUCTION_MEAN, MOLFUSE_REDUCTION_SUM, MOLFUSE_REDUCTION_NONE}) {
      Case c;
      c.batch = batch;
      c.length = length;
      c.latent = latent;
      c.reduction = reduction;
      Problem problem(c, 61);
      const Results r = problem.run();
      for (const double value : r.stats) EXPECT_TRUE(std::isfinite(value));
      if (batch * length == 0) {
        EXPECT_EQ(r.stats[MOLFUSE_VAE_RECON], 0);
      }
    }
  }
}

// Targets in device memory are seen by the kernel only: the loss is then NaN, and the next call says why.
TEST(VaeLoss, OutOfRangeTargetsInDeviceMemoryAreReportedByTheNextCall) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const auto& [value, classes] : {std::pair<double, int64_t>{11.0, 11}, {-7.0, 11}, {1e12, 11}, {1e12, 64}, {1025, 1025}, {-1, 5000}}) {
    for (const Layout layout : {Layout::token_major, Layout::class_second, Layout::odd_strides}) {
      Case c;
      c.layout = layout;
      c.classes = classes;
      c.gap = classes == 11 ? -1 : 0;
      Problem problem(c, 61);
      problem.targets.set(12, value);
      TestTensor stats(MOLFUSE_F32, {MOLFUSE_VAE_STATS}), lse(MOLFUSE_F32, {c.batch, c.length}), grad = problem.like_logits();
      auto a = problem.args();
      a.stats = stats.view();
      a.row_lse = lse.view();
      a.grad_logits = grad.view();
      ASSERT_EQ(molfuse_vae_loss_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
      EXPECT_TRUE(std::isnan(stats[MOLFUSE_VAE_TOTAL]));
      EXPECT_TRUE(grad.unharmed() && lse.unharmed());
      for (int64_t n = 0; n < c.batch * c.length; ++n) {
        const int64_t first = problem.logit_index(n / c.length, n % c.length, 0), last = problem.logit_index(n / c.length, n % c.length, classes - 1);
        EXPECT_EQ(std::isnan(grad[first]), n == 12);
        EXPECT_EQ(std::isnan(grad[last]), n == 12);
      }
      expect_invalid(molfuse_vae_loss_forward(&a, here()), {"targets", "position 12"});
    }
  }
}

TEST(VaeLoss, OutOfRangeTargetsAreNamedAndNothingIsWritten) {
  MOLFUSE_CPU_ONLY();
  for (const double bad : {-1.0, 11.0, 1e15}) {
    Case c;
    Problem problem(c, 67);
    problem.targets.set(1 * c.length + 4, bad);
    auto a = problem.args();
    TestTensor stats(MOLFUSE_F32, {6}), lse(MOLFUSE_F32, {c.batch, c.length});
    a.stats = stats.view();
    a.row_lse = lse.view();
    const auto before = stats.bytes();
    expect_invalid(molfuse_vae_loss_forward(&a, here()), {"targets", "[1,4]", std::to_string(static_cast<int64_t>(bad)).c_str(), "0..10"});
    EXPECT_EQ(stats.bytes(), before);
    TestTensor grad = problem.like_logits();
    a.grad_logits = grad.view();
    const auto grad_before = grad.bytes();
    expect_invalid(molfuse_vae_loss_backward(&a, here()), {"targets", "[1,4]"});
    EXPECT_EQ(grad.bytes(), grad_before);
  }
}

TEST(VaeLoss, BadArgumentsAreRefusedByName) {
  Case c;
  Problem problem(c, 71);
  TestTensor stats(MOLFUSE_F32, {6}), lse(MOLFUSE_F32, {c.batch, c.length}), nll(MOLFUSE_F32, {c.batch, c.length}), grad = problem.like_logits();
  TestTensor i32(MOLFUSE_I32, {c.batch, c.length}), wrong(MOLFUSE_F32, {c.batch, c.length + 1}), other(MOLFUSE_F64, {c.batch, c.latent});
  TestTensor grad_mean(MOLFUSE_F32, problem.mean.sizes());
  auto good = problem.args();
  good.stats = stats.view();
  good.row_lse = lse.view();
  ASSERT_EQ(molfuse_vae_loss_forward(&good, here()), MOLFUSE_OK);
  auto forward = [&](const std::function<void(molfuse_vae_loss_args&)>& change, std::initializer_list<const char*> parts) {
    auto a = good;
    change(a);
    expect_invalid(molfuse_vae_loss_forward(&a, here()), parts);
  };
  auto backward = [&](const std::function<void(molfuse_vae_loss_args&)>& change, std::initializer_list<const char*> parts) {
    auto a = good;
    a.grad_logits = grad.view();
    a.grad_stats = problem.grad_stats.view();
    change(a);
    expect_invalid(molfuse_vae_loss_backward(&a, here()), parts);
  };
  forward([](auto& a) { a.struct_size = 0; }, {"struct_size"});
  expect_invalid(molfuse_vae_loss_forward(nullptr, here()), {"args is NULL"});
  forward([](auto& a) { a.logits.dtype = MOLFUSE_I32; }, {"logits", "int32"});
  forward([](auto& a) { a.logits.dtype = 99; }, {"logits", "unknown"});
  forward([](auto& a) { a.logits.ndim = 2; }, {"logits", "[*,*,*]"});
  forward([](auto& a) { a.logits.data = nullptr; }, {"logits", "required"});
  forward([](auto& a) { a.logits.size[2] = 0; }, {"logits", "at least one class"});
  forward([](auto& a) { a.logits.size[0] = -1; }, {"logits"});
  forward([](auto& a) { a.class_second = 1; }, {"targets"});
  forward([&](auto& a) { a.targets = i32.view(); }, {"targets", "int64", "int32"});
  forward([&](auto& a) { a.targets.size[1] -= 1; }, {"targets", "[3,7]", "[3,6]"});
  forward([](auto& a) { a.mean.data = nullptr; }, {"mean", "required"});
  forward([](auto& a) { a.log_var.data = nullptr; }, {"log_var", "required"});
  forward([&](auto& a) { a.mean = other.view(); }, {"mean", "f64"});
  forward([&](auto& a) { a.log_var.size[1] -= 1; }, {"log_var", "[3,5]"});
  forward([](auto& a) { a.beta = std::nan(""); }, {"beta"});
  forward([](auto& a) { a.reduction = 3; }, {"reduction", "3"});
  forward([](auto& a) { a.stats.data = nullptr; }, {"stats", "required"});
  forward([](auto& a) { a.stats.size[0] = 5; }, {"stats", "[6]", "[5]"});
  forward([](auto& a) { a.stats.stride[0] = 0; }, {"stats", "broadcast"});
  forward([](auto& a) { a.stats.dtype = MOLFUSE_F64; }, {"stats", "f32", "f64"});
  forward([&](auto& a) { a.row_lse = wrong.view(); }, {"row_lse", "[3,7]", "[3,8]"});
  forward([](auto& a) { a.reduction = MOLFUSE_REDUCTION_NONE; }, {"nll"});
  forward([&](auto& a) { a.reduction = MOLFUSE_REDUCTION_NONE; a.nll = nll.view(); }, {"kl_sample"});
  forward([&](auto& a) { a.grad_logits = wrong.view(); }, {"grad_logits"});
  forward([](auto& a) { a.grad_logits = a.logits; }, {"grad_logits", "memory of its own"});
  forward([&](auto& a) { a.grad_logits = grad.view(); a.reduction = MOLFUSE_REDUCTION_NONE; }, {"nll"});
  forward([&](auto& a) {
    a.grad_logits = grad.view();
    a.reduction = MOLFUSE_REDUCTION_NONE;
    a.nll = nll.view();
    a.mean.data = a.log_var.data = nullptr;
  }, {"grad_logits", "none"});
  backward([](auto& a) { a.row_lse.data = nullptr; }, {"row_lse", "required"});
  backward([](auto& a) { a.stats.data = nullptr; }, {"stats", "required"});
  backward([](auto& a) { a.grad_stats.size[0] = 4; }, {"grad_stats"});
  backward([&](auto& a) { a.grad_nll = nll.view(); }, {"grad_nll", "grad_stats"});
  backward([](auto& a) { a.reduction = MOLFUSE_REDUCTION_NONE; }, {"grad_stats", "grad_nll"});
  backward([&](auto& a) { a.grad_logits = wrong.view(); }, {"grad_logits"});
  backward([](auto& a) { a.grad_logits.stride[1] = 0; }, {"grad_logits", "broadcast"});
  backward([](auto& a) { a.grad_logits.dtype = MOLFUSE_BF16; }, {"grad_logits", "f32", "bf16"});
  backward([](auto& a) { a.grad_logits = a.logits; a.grad_logits.stride[0] += 1; }, {"grad_logits", "strides of logits"});
  backward([&](auto& a) { a.grad_mean = other.view(); }, {"grad_mean", "f64"});
  backward([&](auto& a) { a.grad_mean = grad_mean.view(); a.mean.data = nullptr; a.log_var.data = nullptr; }, {"grad_mean", "without"});
  auto execution = zeroed<molfuse_execution>();
  execution.device_type = 7;
  expect_invalid(molfuse_vae_loss_forward(&good, &execution), {"device_type"});
}

TEST(VaeLoss, ScalesWhatForwardWrote) {
  Random random(41);
  for (const int32_t input : kFloatTypes) {
    const int32_t wide = input == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32;
    for (const int32_t dtype : {input, wide}) {
      for (const int32_t reduction : {MOLFUSE_REDUCTION_MEAN, MOLFUSE_REDUCTION_SUM}) {
        for (const int64_t count : {0, 1, 7, 1003}) {
          TestTensor gradient = TestTensor::random(random, dtype, {count}), out(dtype, {count});
          TestTensor stats = TestTensor::of(wide, {6}, {1, 2, 3, 4, 50, 6}), upstream = TestTensor::of(wide, {6}, {0.5, 0.25, 9, 0.125, 9, 9});
          auto a = zeroed<molfuse_vae_loss_scale_args>();
          a.gradient = gradient.view();
          a.out = out.view();
          a.stats = stats.view();
          a.grad_stats = upstream.view();
          a.reduction = reduction;
          a.input_dtype = input;
          double factor = 0.75 + (reduction == MOLFUSE_REDUCTION_SUM ? 0.125 * 4 / (50 + 1e-8) : 0.125 * 4);
          if (reduction == MOLFUSE_REDUCTION_MEAN && input == MOLFUSE_F16) factor /= 50 + 1e-8;
          const std::vector<double> before = gradient.values();
          ASSERT_EQ(molfuse_vae_loss_scale(&a, here()), MOLFUSE_OK) << molfuse_last_error();
          EXPECT_TRUE(out.unharmed());
          EXPECT_EQ(gradient.values(), before);
          for (int64_t n = 0; n < count; ++n) EXPECT_NEAR(out[n], before[static_cast<size_t>(n)] * factor, small_atol(dtype) * 4);
          // In place, and by an infinite perplexity that nobody differentiates.
          stats.set(MOLFUSE_VAE_PERPLEXITY, std::numeric_limits<double>::infinity());
          upstream = TestTensor::of(wide, {6}, {0.75, 0.25, 0, 0, 0, 0});
          a.out = gradient.view();
          a.stats = stats.view();
          a.grad_stats = upstream.view();
          ASSERT_EQ(molfuse_vae_loss_scale(&a, here()), MOLFUSE_OK) << molfuse_last_error();
          const bool divided = reduction == MOLFUSE_REDUCTION_MEAN && input == MOLFUSE_F16;
          std::vector<double> expected = before;
          for (double& value : expected) value = divided ? value / 50 : value;
          EXPECT_LE(max_difference(gradient.values(), expected), divided ? small_atol(dtype) : 0);
        }
      }
    }
  }
  TestTensor line(MOLFUSE_F32, {8}), stats(MOLFUSE_F32, {6}), half(MOLFUSE_F16, {8});
  auto good = zeroed<molfuse_vae_loss_scale_args>();
  good.gradient = good.out = line.view();
  good.stats = good.grad_stats = stats.view();
  good.input_dtype = MOLFUSE_F32;
  auto refuse = [&](const std::function<void(molfuse_vae_loss_scale_args&)>& change, std::initializer_list<const char*> parts,
                    molfuse_status status = MOLFUSE_INVALID_ARGUMENT) {
    auto a = good;
    change(a);
    expect_status(molfuse_vae_loss_scale(&a, here()), status, parts);
  };
  refuse([&](auto& a) { a.gradient = half.view(); }, {"out", "f16"});
  refuse([&](auto& a) { a.gradient = a.out = half.view(); }, {"gradient", "f32", "f16"});
  refuse([](auto& a) { a.out.size[0] = 7; }, {"out", "[8]"});
  refuse([](auto& a) { a.gradient.stride[0] = 2; }, {"gradient", "stride 1"}, MOLFUSE_UNSUPPORTED);
  refuse([](auto& a) { a.stats.size[0] = 5; }, {"stats", "[6]"});
  refuse([](auto& a) { a.grad_stats.data = nullptr; }, {"grad_stats"});
  refuse([](auto& a) { a.reduction = MOLFUSE_REDUCTION_NONE; }, {"reduction"});
  refuse([](auto& a) { a.input_dtype = MOLFUSE_I64; }, {"input_dtype", "int64"});
}
