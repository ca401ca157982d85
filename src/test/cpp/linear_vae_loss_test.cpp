// SPDX-License-Identifier: Apache-2.0
#include "molfuse/vae_loss.h"

#include "support.h"

using namespace molfuse_test;

namespace {

struct Case {
  int32_t dtype = MOLFUSE_F32;
  int32_t reduction = MOLFUSE_REDUCTION_MEAN;
  int64_t batch = 3, length = 7, channels = 16, classes = 11, latent = 4;
  int64_t pad = 0;
  bool bias = true;
  bool strided = false;  // no operand contiguous in its last dimension
  double beta = 0.7;
  bool tf32 = false;  // allowed
  int threads = 2;  // small work would not get them by itself

  std::string text() const {
    return std::string(molfuse_dtype_name(dtype)) + " reduction " + std::to_string(reduction) + " B" + std::to_string(batch) + " T" +
           std::to_string(length) + " C" + std::to_string(channels) + " K" + std::to_string(classes) + (bias ? " bias" : "") +
           (strided ? " strided" : "");
  }
};

/// Values of forward, gradients of backward, and (mean and sum) the gradients that forward gives.
struct Results {
  std::vector<double> stats, nll, lse, kl_sample, grad_hidden, grad_weight, grad_bias, grad_mean, grad_log_var;
  std::vector<double> fused_hidden, fused_weight, fused_bias;
  // The largest sum of the absolute values of what a gradient is the sum of: rounding is relative to that, whatever cancels.
  double hidden_terms = 0, weight_terms = 0, bias_terms = 0;
};

// Likewise: a logit of these problems, and the 1 in 1 + log_var - mean^2 - exp(log_var).
constexpr double kLogit = 6, kOne = 1;

template <class F>
double largest_of(const std::vector<F>& values) {
  double largest = 0;
  for (const F v : values) largest = std::max(largest, static_cast<double>(std::abs(v)));
  return largest;
}

struct Problem {
  Case c;
  TestTensor hidden, weight, bias, targets, mean, log_var, grad_stats, grad_nll, grad_kl;

  Problem(const Case& given, uint64_t seed) : c(given) {
    Random random(seed);
    const double scale = 2 / std::sqrt(static_cast<double>(c.channels));
    hidden = TestTensor::random(random, c.dtype, {c.batch, c.length, c.channels}, c.strided ? std::vector<int>{2, 0, 1} : std::vector<int>{},
                                c.channels % 3);
    weight = TestTensor::random(random, c.dtype, {c.classes, c.channels}, c.strided ? std::vector<int>{1, 0} : std::vector<int>{},
                                c.channels % 2, scale);
    if (c.bias) bias = TestTensor::random(random, c.dtype, {c.classes});
    targets = TestTensor(MOLFUSE_I64, {c.batch, c.length}, {1, 0}, 1);
    targets.fill([&](int64_t) { return static_cast<double>(between(random, 0, 3) == 0 ? c.pad : between(random, 0, c.classes - 1)); });
    mean = TestTensor::random(random, c.dtype, {c.batch, c.latent});
    log_var = TestTensor::random(random, c.dtype, {c.batch, c.latent});
    grad_stats = TestTensor(wide(), {MOLFUSE_VAE_STATS});
    // Of one sign: they are added up to a factor of the gradient, and where they cancel the rounding of perplexity is all that is left.
    grad_stats.fill([&](int64_t n) { return n <= MOLFUSE_VAE_PERPLEXITY ? std::fabs(normal(random)) : std::nan(""); });
    grad_stats.set(MOLFUSE_VAE_PERPLEXITY, 0.01 * std::fabs(normal(random)));
    grad_nll = TestTensor::random(random, wide(), {c.batch, c.length}, {1, 0}, 3);
    grad_kl = TestTensor::random(random, wide(), {c.batch});
  }

  int32_t wide() const { return c.dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32; }
  bool none() const { return c.reduction == MOLFUSE_REDUCTION_NONE; }
  bool masked(int64_t n) const { return targets[n] == static_cast<double>(c.pad); }

  molfuse_linear_vae_loss_args args() {
    auto a = zeroed<molfuse_linear_vae_loss_args>();
    a.hidden = hidden.view();
    a.weight = weight.view();
    if (c.bias) a.weight_bias = bias.view();
    a.targets = targets.view();
    a.pad_index = c.pad;
    a.mean = mean.view();
    a.log_var = log_var.view();
    a.beta = c.beta;
    a.reduction = c.reduction;
    return a;
  }

  Results run() { return run_expecting(MOLFUSE_OK); }
  Results run_expecting(molfuse_status next_status) {
    auto a = args();
    auto execution = execution_here(c.threads);
    execution.allow_tf32 = c.tf32;
    TestTensor stats(wide(), {MOLFUSE_VAE_STATS}), lse(wide(), {c.batch, c.length}, {1, 0}, 2), nll(wide(), {c.batch, c.length}, {}, 1),
        kl_sample(wide(), {c.batch});
    a.stats = stats.view();
    a.row_lse = lse.view();
    a.nll = nll.view();
    a.kl_sample = kl_sample.view();
    const std::vector<int> order3 = c.strided ? std::vector<int>{2, 1, 0} : std::vector<int>{};
    const std::vector<int> order2 = c.strided ? std::vector<int>{1, 0} : std::vector<int>{};
    auto gradients = [&](TestTensor& h, TestTensor& w, TestTensor& b) {
      h = TestTensor(c.dtype, hidden.sizes(), order3, 1);
      w = TestTensor(wide(), weight.sizes(), order2, 1);
      a.grad_hidden = h.view();
      a.grad_weight = w.view();
      if (c.bias) {
        b = TestTensor(wide(), {c.classes}, {}, 1);
        a.grad_weight_bias = b.view();
      }
    };
    TestTensor fused_hidden, fused_weight, fused_bias, grad_hidden, grad_weight, grad_bias;
    if (!none()) gradients(fused_hidden, fused_weight, fused_bias);
    EXPECT_EQ(molfuse_linear_vae_loss_forward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    if (next_status != MOLFUSE_OK) {
      // What forward's kernels found is told by the next call.
      EXPECT_EQ(molfuse_linear_vae_loss_forward(&a, &execution), next_status);
      Results r;
      r.stats = stats.values();
      r.nll = nll.values();
      return r;
    }
    if (none()) {
      a.grad_nll = grad_nll.view();
      a.grad_kl_sample = grad_kl.view();
    } else {
      a.grad_stats = grad_stats.view();
    }
    gradients(grad_hidden, grad_weight, grad_bias);
    TestTensor grad_mean(c.dtype, mean.sizes()), grad_log_var(c.dtype, mean.sizes());
    a.grad_mean = grad_mean.view();
    a.grad_log_var = grad_log_var.view();
    EXPECT_EQ(molfuse_linear_vae_loss_backward(&a, &execution), MOLFUSE_OK) << molfuse_last_error();
    for (const TestTensor* t : {&stats, &lse, &nll, &kl_sample, &fused_hidden, &fused_weight, &fused_bias, &grad_hidden, &grad_weight, &grad_bias,
                                &grad_mean, &grad_log_var}) {
      EXPECT_TRUE(t->unharmed());
    }
    return {stats.values(),     nll.values(),          lse.values(),          kl_sample.values(),    grad_hidden.values(),
            grad_weight.values(), grad_bias.values(), grad_mean.values(), grad_log_var.values(), fused_hidden.values(),
            fused_weight.values(), fused_bias.values()};
  }

  /// The formulas, naively, in arithmetic of type F; the gradients of hidden, mean and log_var rounded to their type if F is float.
  template <class F>
  Results formula() const {
    const int64_t tokens = c.batch * c.length;
    auto matrix = [](const TestTensor& t) {
      std::vector<F> values(static_cast<size_t>(t.count()));
      for (int64_t n = 0; n < t.count(); ++n) values[static_cast<size_t>(n)] = static_cast<F>(t[n]);
      return values;
    };
    auto stored = [&](F value) { return sizeof(F) == 8 ? static_cast<double>(value) : round_to(c.dtype, static_cast<double>(value)); };
    // Tensor cores take the gradient of the logits in the operands' type, as a product of it does in libtorch, where the logits are of that
    // type, too. The CPU's products are f32 throughout.
    auto logit_of = [&](F value) { return kOnDevice ? static_cast<F>(stored(value)) : value; };
    const std::vector<F> h = matrix(hidden), w = matrix(weight), b = matrix(bias);
    Results r;
    std::vector<F> log_prob(static_cast<size_t>(tokens * c.classes));
    F nll_sum = 0, kl_sum = 0;
    int64_t count = 0, correct = 0;
    for (int64_t n = 0; n < tokens; ++n) {
      if (masked(n)) {
        r.nll.push_back(0);
        r.lse.push_back(0);
        continue;
      }
      F* row = &log_prob[static_cast<size_t>(n * c.classes)];
      F largest = -std::numeric_limits<F>::infinity(), total = 0;
      int64_t best = 0;
      for (int64_t k = 0; k < c.classes; ++k) {
        F sum = c.bias ? b[static_cast<size_t>(k)] : F{0};
        for (int64_t i = 0; i < c.channels; ++i) sum += h[static_cast<size_t>(n * c.channels + i)] * w[static_cast<size_t>(k * c.channels + i)];
        row[k] = sum = logit_of(sum);
        if (sum > largest) {
          largest = sum;
          best = k;
        }
      }
      for (int64_t k = 0; k < c.classes; ++k) total += std::exp(row[k] - largest);
      const F log_total = std::log(total);
      for (int64_t k = 0; k < c.classes; ++k) row[k] = row[k] - largest - log_total;
      const int64_t target = static_cast<int64_t>(targets[n]);
      ++count;
      correct += target == best;
      nll_sum += -row[target];
      r.nll.push_back(static_cast<double>(-row[target]));
      r.lse.push_back(static_cast<double>(largest + log_total));
    }
    for (int64_t s = 0; s < c.batch; ++s) {
      F sample = 0;
      for (int64_t l = 0; l < c.latent; ++l) {
        const F m = static_cast<F>(mean[s * c.latent + l]), lv = static_cast<F>(log_var[s * c.latent + l]);
        sample += F{-0.5} * (F{1} + lv - m * m - std::exp(lv));
      }
      kl_sum += sample;
      r.kl_sample.push_back(static_cast<double>(sample));
    }
    const F beta = static_cast<F>(c.beta), per_token = F{1} / (static_cast<F>(count) + static_cast<F>(1e-8));
    const bool mean_wanted = c.reduction == MOLFUSE_REDUCTION_MEAN;
    const F elements = static_cast<F>(c.batch * c.latent), perplexity = std::exp(nll_sum * per_token);
    const F recon = mean_wanted ? nll_sum * per_token : nll_sum, kl = mean_wanted ? kl_sum / elements : kl_sum;
    r.stats = {static_cast<double>(recon + beta * kl), static_cast<double>(recon), static_cast<double>(kl), static_cast<double>(perplexity)};
    if (none()) r.stats.assign(4, 0.0);
    r.stats.push_back(static_cast<double>(count));
    r.stats.push_back(static_cast<double>(correct));

    auto upstream = [&](int n) { return static_cast<F>(grad_stats[n]); };
    F token_scale = upstream(MOLFUSE_VAE_TOTAL) + upstream(MOLFUSE_VAE_RECON);
    token_scale = mean_wanted ? (token_scale + upstream(MOLFUSE_VAE_PERPLEXITY) * perplexity) * per_token
                              : token_scale + upstream(MOLFUSE_VAE_PERPLEXITY) * perplexity * per_token;
    auto back = [&](std::vector<double>& grad_h, std::vector<double>& grad_w, std::vector<double>& grad_b, const std::function<F(int64_t)>& scale) {
      std::vector<F> gw(w.size()), gb(static_cast<size_t>(c.classes)), weight_terms(w.size()), bias_terms(gb.size());
      for (int64_t n = 0; n < tokens; ++n) {
        std::vector<F> gh(static_cast<size_t>(c.channels)), hidden_terms(gh.size());
        for (int64_t k = 0; k < c.classes && !masked(n); ++k) {
          const F p = std::exp(log_prob[static_cast<size_t>(n * c.classes + k)]), y = static_cast<double>(k) == targets[n] ? F{1} : F{0};
          const F g = logit_of((p - y) * scale(n)), terms = (p + y) * std::abs(scale(n));
          gb[static_cast<size_t>(k)] += g;
          bias_terms[static_cast<size_t>(k)] += terms;
          for (int64_t i = 0; i < c.channels; ++i) {
            const size_t at = static_cast<size_t>(k * c.channels + i);
            const F weight_at = w[at], hidden_at = h[static_cast<size_t>(n * c.channels + i)];
            gh[static_cast<size_t>(i)] += g * weight_at;
            gw[at] += g * hidden_at;
            hidden_terms[static_cast<size_t>(i)] += terms * std::abs(weight_at);
            weight_terms[at] += terms * std::abs(hidden_at);
          }
        }
        for (const F value : gh) grad_h.push_back(stored(value));
        r.hidden_terms = std::max(r.hidden_terms, largest_of(hidden_terms));
      }
      r.weight_terms = std::max(r.weight_terms, largest_of(weight_terms));
      r.bias_terms = std::max(r.bias_terms, largest_of(bias_terms));
      grad_w.assign(gw.begin(), gw.end());
      if (c.bias) grad_b.assign(gb.begin(), gb.end());
    };
    back(r.grad_hidden, r.grad_weight, r.grad_bias, [&](int64_t n) { return none() ? static_cast<F>(grad_nll[n]) : token_scale; });
    if (!none()) back(r.fused_hidden, r.fused_weight, r.fused_bias, [&](int64_t) { return mean_wanted && c.dtype != MOLFUSE_F16 ? per_token : F{1}; });
    F latent_scale = beta * upstream(MOLFUSE_VAE_TOTAL) + upstream(MOLFUSE_VAE_KL);
    if (mean_wanted) latent_scale /= elements;
    for (int64_t s = 0; s < c.batch; ++s) {
      for (int64_t l = 0; l < c.latent; ++l) {
        const F scale = none() ? static_cast<F>(grad_kl[s]) : latent_scale;
        r.grad_mean.push_back(stored(scale * static_cast<F>(mean[s * c.latent + l])));
        r.grad_log_var.push_back(stored(scale * F{0.5} * (std::exp(static_cast<F>(log_var[s * c.latent + l])) - F{1})));
      }
    }
    return r;
  }
};

void compare(const Results& result, const Results& eager, const Results& reference, int32_t dtype) {
  const int32_t wide = dtype == MOLFUSE_F64 ? MOLFUSE_F64 : MOLFUSE_F32;
  auto accept = [&](const char* name, const std::vector<double> Results::*member, int32_t type, double terms) {
    ASSERT_EQ((result.*member).size(), (reference.*member).size()) << name;
    const double size = std::max(terms, largest_of(reference.*member));
    EXPECT_TRUE(accepted(result.*member, eager.*member, reference.*member, small_atol(type) * size)) << name;
  };
  for (size_t n = 0; n < MOLFUSE_VAE_STATS; ++n) {
    const double size = n == MOLFUSE_VAE_PERPLEXITY ? kLogit * reference.stats[n] : std::max(std::fabs(reference.stats[n]), kLogit);
    EXPECT_TRUE(accepted({result.stats[n]}, {eager.stats[n]}, {reference.stats[n]}, small_atol(wide) * size)) << "stats " << n;
  }
  EXPECT_EQ(result.stats[MOLFUSE_VAE_TOKEN_COUNT], reference.stats[MOLFUSE_VAE_TOKEN_COUNT]);
  accept("nll", &Results::nll, wide, kLogit);
  accept("row_lse", &Results::lse, wide, kLogit);
  accept("kl_sample", &Results::kl_sample, wide, kOne);
  accept("grad_hidden", &Results::grad_hidden, dtype, reference.hidden_terms);
  accept("grad_weight", &Results::grad_weight, wide, reference.weight_terms);
  accept("grad_bias", &Results::grad_bias, wide, reference.bias_terms);
  accept("grad_mean", &Results::grad_mean, dtype, 0);
  accept("grad_log_var", &Results::grad_log_var, dtype, largest_of(reference.grad_mean));
  accept("grad_hidden of forward", &Results::fused_hidden, dtype, reference.hidden_terms);
  accept("grad_weight of forward", &Results::fused_weight, wide, reference.weight_terms);
  accept("grad_bias of forward", &Results::fused_bias, wide, reference.bias_terms);
}

#if defined(MOLFUSE_SIMT)
/// As things are set.
void check_once(const Case& c, uint64_t seed) {
  SCOPED_TRACE(c.text() + " seed " + std::to_string(seed));
  Problem problem(c, seed);
  compare(problem.run(), problem.formula<float>(), problem.formula<double>(), c.dtype);
}

#endif

/// At every level, against one computation of the references.
void check(const Case& c, uint64_t seed) {
  SCOPED_TRACE(c.text() + " seed " + std::to_string(seed));
  Problem problem(c, seed);
  const Results reference = problem.formula<double>();
  const Results eager = c.dtype == MOLFUSE_F64 ? reference : problem.formula<float>();
  at_each_level([&](const std::string&) { compare(problem.run(), eager, reference, c.dtype); });
}

}  // namespace

TEST(LinearVaeLoss, MatchesTheFormulaForRandomShapesTypesAndStrides) {
  const int64_t channels[] = {1, 3, 8, 15, 16, 17, 32, 40, 65, 130, 300}, classes[] = {1, 2, 5, 7, 16, 39, 40, 41, 65, 130, 301};
  Random random(std::random_device{}());
  for (int n = 0; n < (kSlow ? 8 : 60); ++n) {
    Case c;
    c.dtype = kFloatTypes[static_cast<size_t>(between(random, 0, static_cast<int64_t>(std::size(kFloatTypes)) - 1))];
    c.reduction = static_cast<int32_t>(between(random, 0, 2));
    c.batch = between(random, 1, 5);
    c.length = between(random, 1, kSlow ? 25 : 40);
    c.channels = channels[between(random, 0, 10)];
    // What the simulated device has shared memory for in f32; EveryRegimeOfTheDevice gives it more.
    if (kSlow) c.channels = std::min<int64_t>(c.channels, 256);
    c.classes = classes[between(random, 0, 10)];
    c.pad = between(random, 0, 1) != 0 ? 0 : -100;
    c.bias = between(random, 0, 2) != 0;
    c.strided = between(random, 0, 2) == 0;
    check(c, random());
  }
}

TEST(LinearVaeLoss, ManyRowsFillBlocksOfEverySize) {
  for (const int64_t length : {150, 700}) {
    if (kSlow && length > 500) continue;
    Case c;
    c.batch = kSlow ? 1 : 3;
    c.length = length;
    c.channels = 24;
    c.classes = 39;
    check(c, 2);
  }
}

TEST(LinearVaeLoss, ManyClassesTakeSeveralTiles) {
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
    for (const int32_t reduction : {MOLFUSE_REDUCTION_MEAN, MOLFUSE_REDUCTION_NONE}) {
      Case c;
      c.dtype = dtype;
      c.reduction = reduction;
      c.channels = 9;
      c.classes = kSlow ? 200 : 33000;
      check(c, 3);
    }
  }
}

TEST(LinearVaeLoss, AWeightGradientTooLargeForPartialSumsGoesByClass) {
  MOLFUSE_CPU_ONLY();
  for (const int32_t reduction : {MOLFUSE_REDUCTION_SUM, MOLFUSE_REDUCTION_NONE}) {
    Case c;
    c.dtype = MOLFUSE_F64;
    c.reduction = reduction;
    c.batch = 3;
    c.length = 32;
    c.channels = 258;
    c.classes = 8300;
    check(c, 4);
  }
}

TEST(LinearVaeLoss, GradientsMatchFiniteDifferences) {
  MOLFUSE_CPU_ONLY();
  for (const int32_t reduction : {MOLFUSE_REDUCTION_MEAN, MOLFUSE_REDUCTION_SUM, MOLFUSE_REDUCTION_NONE}) {
    Case c;
    c.dtype = MOLFUSE_F64;
    c.reduction = reduction;
    c.batch = 2;
    c.length = 3;
    c.channels = 4;
    c.classes = 5;
    c.threads = 1;
    Problem problem(c, 17);
    const Results analytic = problem.run();
    auto objective = [&] {
      const Results r = problem.run();
      double value = 0;
      for (size_t n = 0; n < r.nll.size() && problem.none(); ++n) value += r.nll[n] * problem.grad_nll[static_cast<int64_t>(n)];
      for (size_t n = 0; n < r.kl_sample.size() && problem.none(); ++n) value += r.kl_sample[n] * problem.grad_kl[static_cast<int64_t>(n)];
      for (int n = 0; n <= MOLFUSE_VAE_PERPLEXITY && !problem.none(); ++n) value += r.stats[static_cast<size_t>(n)] * problem.grad_stats[n];
      return value;
    };
    auto expect_gradient = [&](TestTensor& input, const std::vector<double>& gradient) {
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
    expect_gradient(problem.hidden, analytic.grad_hidden);
    expect_gradient(problem.weight, analytic.grad_weight);
    expect_gradient(problem.bias, analytic.grad_bias);
    expect_gradient(problem.mean, analytic.grad_mean);
    expect_gradient(problem.log_var, analytic.grad_log_var);
  }
}

TEST(LinearVaeLoss, MaskedPositionsNeverTouchTheResult) {
  at_each_level([](const std::string&) {
    Case c;
    c.length = 21;
    Problem problem(c, 23);
    const Results clean = problem.run();
    problem.hidden.fill([&, copy = problem.hidden](int64_t n) { return problem.masked(n / c.channels) ? std::nan("") : copy[n]; });
    const Results poisoned = problem.run();
    EXPECT_EQ(poisoned.stats, clean.stats);
    EXPECT_EQ(poisoned.nll, clean.nll);
    EXPECT_EQ(poisoned.grad_hidden, clean.grad_hidden);
    EXPECT_EQ(poisoned.grad_weight, clean.grad_weight);
    EXPECT_EQ(poisoned.grad_bias, clean.grad_bias);
    for (int64_t n = 0; n < c.batch * c.length; ++n) {
      for (int64_t i = 0; i < c.channels && problem.masked(n); ++i) EXPECT_EQ(poisoned.grad_hidden[static_cast<size_t>(n * c.channels + i)], 0);
    }
  });
}

TEST(LinearVaeLoss, NanHiddenStatesGiveANanLoss) {
  at_each_level([](const std::string&) {
    Case c;
    c.classes = 39;
    Problem problem(c, 31);
    problem.targets.set(2, 1);
    problem.hidden.set(2 * c.channels + 5, std::nan(""));
    const Results r = problem.run();
    EXPECT_TRUE(std::isnan(r.stats[MOLFUSE_VAE_TOTAL]));
    EXPECT_TRUE(std::isnan(r.nll[2]));
    EXPECT_FALSE(std::isnan(r.nll[1]));
    EXPECT_FALSE(std::isnan(r.stats[MOLFUSE_VAE_KL]));
  });
}

TEST(LinearVaeLoss, ABiasOfMinusInfinityMasksAClass) {
  at_each_level([](const std::string&) {
    Case c;
    Problem problem(c, 33);
    problem.bias.set(4, -std::numeric_limits<double>::infinity());
    problem.targets.fill([](int64_t n) { return static_cast<double>(n % 4); });
    const Results r = problem.run();
    EXPECT_TRUE(std::isfinite(r.stats[MOLFUSE_VAE_TOTAL]));
    EXPECT_EQ(r.grad_bias[4], 0);
    for (int64_t i = 0; i < c.channels; ++i) EXPECT_EQ(r.grad_weight[static_cast<size_t>(4 * c.channels + i)], 0);
    EXPECT_TRUE(std::isfinite(largest_of(r.grad_hidden)));
  });
}

TEST(LinearVaeLoss, LargeBiasesStayOutOfUnusedLanes) {
  at_each_level([](const std::string&) {
    // Several tiles of classes, and a last block of tokens that is no multiple of a vector; exp(88.5) overflows.
    for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_F64}) {
      if (kOnDevice && dtype == MOLFUSE_F64) continue;
      Case c;
      c.dtype = dtype;
      c.batch = 1;
      c.length = 5;
      c.channels = 3;
      c.classes = kSlow ? 130 : 9000;
      Problem problem(c, 5);
      problem.bias.fill([&](int64_t) { return dtype == MOLFUSE_F32 ? 88.5 : 710.0; });
      const Results got = problem.run();
      for (const double g : got.grad_bias) EXPECT_TRUE(std::isfinite(g));
      for (const double g : got.fused_bias) EXPECT_TRUE(std::isfinite(g));
    }
  });
}

TEST(LinearVaeLoss, ArgmaxTiesGoToTheLowestClass) {
  at_each_level([](const std::string&) {
    Case c;
    c.pad = -1;
    c.classes = 39;
    Problem problem(c, 35);
    problem.weight.fill([&](int64_t n) { return n % c.channels == 0 ? 1.0 : 0.5; });
    problem.bias.fill([](int64_t n) { return n == 0 || n == 20 ? -1.0 : 2.0; });
    problem.targets.fill([](int64_t n) { return static_cast<double>(n % 3); });
    EXPECT_EQ(problem.run().stats[MOLFUSE_VAE_CORRECT], 7);  // targets of 1 among 21
  });
}

TEST(LinearVaeLoss, AllPaddingAndZeroSizesGiveZero) {
  at_each_level([](const std::string&) {
    for (const auto& [batch, length] : {std::pair<int64_t, int64_t>{3, 7}, {0, 7}, {3, 0}}) {
      Case c;
      c.batch = batch;
      c.length = length;
      Problem problem(c, 37);
      problem.targets.fill([](int64_t) { return 0.0; });
      const Results r = problem.run();
      EXPECT_EQ(r.stats[MOLFUSE_VAE_RECON], 0);
      EXPECT_EQ(r.stats[MOLFUSE_VAE_PERPLEXITY], 1);
      EXPECT_EQ(r.stats[MOLFUSE_VAE_TOKEN_COUNT], 0);
      EXPECT_TRUE(std::isfinite(r.stats[MOLFUSE_VAE_TOTAL]));
      for (const auto* values : {&r.nll, &r.grad_hidden, &r.grad_weight, &r.grad_bias, &r.fused_hidden, &r.fused_weight, &r.fused_bias}) {
        for (const double value : *values) EXPECT_EQ(value, 0);
      }
    }
  });
}

TEST(LinearVaeLoss, ResultsDoNotDependOnTheNumberOfThreads) {
  at_each_level([](const std::string&) {
    Case c;
    c.batch = kSlow ? 2 : 8;  // there, runs differ in the order in which threads come
    c.length = kSlow ? 70 : 127;
    c.channels = 48;
    c.classes = 40;
    c.threads = 1;
    const Results one = Problem(c, 47).run();
    for (const int threads : {2, 3, 8}) {
      if (kOnDevice && threads > 2) break;
      c.threads = threads;
      const Results many = Problem(c, 47).run();
      EXPECT_EQ(one.stats, many.stats);
      EXPECT_EQ(one.fused_hidden, many.fused_hidden);
      EXPECT_EQ(one.fused_weight, many.fused_weight);
      EXPECT_EQ(one.grad_weight, many.grad_weight);
      EXPECT_EQ(one.grad_bias, many.grad_bias);
    }
  });
}

TEST(LinearVaeLoss, AgreesWithVaeLossOnTheSameLogits) {
  MOLFUSE_CPU_ONLY();
  Case c;
  c.dtype = MOLFUSE_F64;
  c.classes = 39;
  Problem problem(c, 49);
  const Results fused = problem.run();
  TestTensor logits(MOLFUSE_F64, {c.batch, c.length, c.classes}), stats(MOLFUSE_F64, {MOLFUSE_VAE_STATS});
  logits.fill([&](int64_t n) {
    double sum = problem.bias[n % c.classes];
    for (int64_t i = 0; i < c.channels; ++i) sum += problem.hidden[n / c.classes * c.channels + i] * problem.weight[n % c.classes * c.channels + i];
    return sum;
  });
  auto a = zeroed<molfuse_vae_loss_args>();
  a.logits = logits.view();
  a.targets = problem.targets.view();
  a.mean = problem.mean.view();
  a.log_var = problem.log_var.view();
  a.beta = c.beta;
  a.stats = stats.view();
  ASSERT_EQ(molfuse_vae_loss_forward(&a, nullptr), MOLFUSE_OK) << molfuse_last_error();
  for (int n = 0; n < MOLFUSE_VAE_STATS; ++n) EXPECT_NEAR(stats[n], fused.stats[static_cast<size_t>(n)], 1e-12 * (1 + std::fabs(stats[n])));
}

TEST(LinearVaeLoss, PositionsWithoutAFiniteLogitAreNotCorrect) {
  Case c;
  c.pad = -1;
  Problem problem(c, 50);
  problem.bias.fill([](int64_t) { return -std::numeric_limits<double>::infinity(); });
  problem.targets.fill([](int64_t n) { return n % 2 == 0 ? 0.0 : 3.0; });
  EXPECT_EQ(problem.run().stats[MOLFUSE_VAE_CORRECT], 0);
  // The loss of given logits agrees, whatever path its sizes and layout take.
  for (const int64_t classes : {3, 11, 700}) {
    for (const bool class_second : {false, true}) {
      TestTensor logits(c.dtype, class_second ? std::vector<int64_t>{c.batch, classes, c.length} : std::vector<int64_t>{c.batch, c.length, classes});
      TestTensor stats(MOLFUSE_F32, {MOLFUSE_VAE_STATS}), targets(MOLFUSE_I64, {c.batch, c.length});
      logits.fill([](int64_t) { return -std::numeric_limits<double>::infinity(); });
      targets.fill([](int64_t n) { return n % 2 == 0 ? 0.0 : 2.0; });
      auto a = zeroed<molfuse_vae_loss_args>();
      a.logits = logits.view();
      a.class_second = class_second;
      a.targets = targets.view();
      a.pad_index = -1;
      a.stats = stats.view();
      ASSERT_EQ(molfuse_vae_loss_forward(&a, here()), MOLFUSE_OK) << molfuse_last_error();
      EXPECT_EQ(stats[MOLFUSE_VAE_CORRECT], 0);
    }
  }
}

TEST(LinearVaeLoss, BadArgumentsAreRefusedByName) {
  Case c;
  Problem problem(c, 71);
  TestTensor stats(MOLFUSE_F32, {6}), lse(MOLFUSE_F32, {c.batch, c.length}), nll(MOLFUSE_F32, {c.batch, c.length}), kl(MOLFUSE_F32, {c.batch});
  TestTensor wrong(MOLFUSE_F32, {c.classes, c.channels + 1}), half(MOLFUSE_BF16, {c.classes, c.channels}), right(MOLFUSE_F32, {c.classes, c.channels}),
      vector(MOLFUSE_F32, {c.classes});
  auto good = problem.args();
  good.stats = stats.view();
  good.row_lse = lse.view();
  ASSERT_EQ(molfuse_linear_vae_loss_forward(&good, here()), MOLFUSE_OK) << molfuse_last_error();
  using Change = std::function<void(molfuse_linear_vae_loss_args&)>;
  auto forward = [&](const Change& change, std::initializer_list<const char*> parts) {
    auto a = good;
    change(a);
    expect_invalid(molfuse_linear_vae_loss_forward(&a, here()), parts);
  };
  auto backward = [&](const Change& change, std::initializer_list<const char*> parts) {
    auto a = good;
    a.grad_stats = problem.grad_stats.view();
    a.grad_weight = right.view();
    change(a);
    expect_invalid(molfuse_linear_vae_loss_backward(&a, here()), parts);
  };
  expect_invalid(molfuse_linear_vae_loss_forward(nullptr, nullptr), {"args is NULL"});
  forward([](auto& a) { a.hidden.dtype = MOLFUSE_I64; }, {"hidden", "int64"});
  forward([](auto& a) { a.hidden.data = nullptr; }, {"hidden", "required"});
  forward([](auto& a) { a.hidden.ndim = 2; }, {"hidden", "[*,*,*]"});
  forward([](auto& a) { a.hidden.size[2] = 0; }, {"hidden", "at least one channel"});
  forward([&](auto& a) { a.weight = wrong.view(); }, {"weight", "[*,16]", "[11,17]"});
  forward([&](auto& a) { a.weight = half.view(); }, {"weight", "f32", "bf16"});
  forward([](auto& a) { a.weight.size[0] = 0; }, {"weight", "at least one class"});
  forward([](auto& a) { a.weight_bias.size[0] -= 1; }, {"weight_bias", "[11]", "[10]"});
  forward([](auto& a) { a.weight_bias.dtype = MOLFUSE_F64; }, {"weight_bias", "f64"});
  forward([](auto& a) { a.targets.size[0] += 1; }, {"targets", "[3,7]"});
  // On a device only the kernels see targets: WrongTargetsOnADevice.
  if (!kOnDevice) forward([](auto& a) { a.pad_index = 5; static_cast<int64_t*>(a.targets.data)[0] = 11; }, {"targets", "11", "[0,0]"});
  problem.targets.set(0, 1);
  forward([](auto& a) { a.reduction = -1; }, {"reduction", "-1"});
  forward([](auto& a) { a.stats.data = nullptr; }, {"stats", "required"});
  forward([&](auto& a) { a.grad_weight = wrong.view(); }, {"grad_weight", "[11,16]", "[11,17]"});
  forward([&](auto& a) { a.grad_weight = half.view(); }, {"grad_weight", "f32", "bf16"});
  forward([](auto& a) { a.grad_hidden = a.hidden; a.grad_hidden.stride[0] = 0; }, {"grad_hidden", "broadcast"});
  forward([&](auto& a) { a.grad_weight_bias = vector.view(); a.weight_bias.data = nullptr; }, {"grad_weight_bias", "without weight_bias"});
  forward([&](auto& a) { a.reduction = MOLFUSE_REDUCTION_NONE; }, {"nll"});
  forward([&](auto& a) { a.reduction = MOLFUSE_REDUCTION_NONE; a.nll = nll.view(); a.kl_sample = kl.view(); a.grad_weight = right.view(); },
          {"grad_weight", "backward"});
  backward([](auto& a) { a.row_lse.data = nullptr; }, {"row_lse", "required"});
  backward([](auto& a) { a.stats.data = nullptr; }, {"stats", "required"});
  backward([&](auto& a) { a.grad_nll = nll.view(); }, {"grad_nll", "grad_stats"});
  backward([](auto& a) { a.reduction = MOLFUSE_REDUCTION_NONE; }, {"grad_stats", "grad_nll"});
}

TEST(LinearVaeLoss, WrongTargetsOnADeviceAreReportedByTheNextCall) {
  if (!kOnDevice) GTEST_SKIP() << "the CPU sees them before";
  for (const int64_t classes : {11, 90}) {
    Case c;
    c.classes = classes;
    Problem problem(c, 72);
    problem.targets.set(9, static_cast<double>(classes));
    const Results wrong = problem.run_expecting(MOLFUSE_INVALID_ARGUMENT);
    EXPECT_TRUE(std::isnan(wrong.nll[9]));
    EXPECT_TRUE(std::isnan(wrong.stats[MOLFUSE_VAE_TOTAL]));
    problem.targets.set(9, 1);
    EXPECT_TRUE(std::isfinite(problem.run().stats[MOLFUSE_VAE_TOTAL]));
  }
}

// Each size of tile, with channels that fill it, do not, and cannot be read 16 bytes at a time; one tile of classes and several; with as
// much shared memory as needed for everything, and with less.
TEST(LinearVaeLoss, EveryRegimeOfTheDevice) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
#if defined(MOLFUSE_SIMT)
  const simt::Settings before = simt::settings();
  for (const int32_t dtype : {MOLFUSE_F32, MOLFUSE_BF16}) {
    for (const int64_t channels : {64, 61, 120, 256, 260, 1000}) {
      if (dtype == MOLFUSE_F32 && channels != 61 && channels != 260) continue;
      for (const int64_t classes : {16, 65}) {
        for (const int kilobytes : {227, 163}) {
          if (kilobytes == 163 && channels < 512 && (dtype != MOLFUSE_F32 || channels < 260)) continue;
          simt::settings().max_shared = static_cast<size_t>(kilobytes) << 10;
          simt::settings().seed = static_cast<uint64_t>(channels);
          Case c;
          c.dtype = dtype;
          c.channels = channels;
          c.classes = classes;
          c.batch = 1;
          c.length = kSanitized && channels > 200 ? 35 : 70;
          c.reduction = channels % 3 == 0 ? MOLFUSE_REDUCTION_NONE : MOLFUSE_REDUCTION_MEAN;
          check_once(c, 5);
        }
      }
    }
  }
  simt::settings() = before;
#endif
}

TEST(LinearVaeLoss, Tf32WhereItIsAllowed) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const int64_t channels : {64, 136}) {  // with and without the weight gradient in the same kernel
    Case c;
    c.channels = channels;
    const Results whole = Problem(c, 1).run();
    c.tf32 = true;
    const Results got = Problem(c, 1).run();
    for (auto of : {&Results::nll, &Results::grad_hidden, &Results::grad_weight}) {
      EXPECT_GT(max_difference(got.*of, whole.*of), 0) << "the flag changes nothing";
      EXPECT_LE(max_difference(got.*of, whole.*of), 1e-2);
    }
  }
}

TEST(LinearVaeLoss, TooManyChannelsForAnyDeviceAreRefused) {
  if (!kOnDevice) GTEST_SKIP() << "for devices";
  for (const auto& [dtype, channels] : {std::pair<int32_t, int64_t>{MOLFUSE_F32, 513}, {MOLFUSE_BF16, 1025}}) {
    Case c;
    c.dtype = dtype;
    c.channels = channels;
    Problem problem(c, 73);
    TestTensor stats(MOLFUSE_F32, {6});
    auto a = problem.args();
    a.stats = stats.view();
    expect_status(molfuse_linear_vae_loss_forward(&a, here()), MOLFUSE_UNSUPPORTED, {"channels", std::to_string(channels).c_str()});
  }
}
