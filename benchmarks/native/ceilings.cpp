// SPDX-License-Identifier: Apache-2.0
// Measures the ceilings that the benchmarks' results are held against, with all the threads that OMP_NUM_THREADS allows:
//   copy   bytes read plus bytes written per second when copying between buffers larger than the caches, by ordinary and by
//          non-temporal stores and by memcpy
//   f32    multiplications plus additions per second of fused multiply-adds on registers, in the widest vectors the CPU has
//   bf16   the same of AVX-512 BF16 dot products; where the CPU has none, bf16 is widened and multiplied as f32
// Prints JSON with every sample.
//
//   ceilings [MEBIBYTES_OF_A_BUFFER [ROUNDS]]
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// ---- copies; counts are multiples of 256 bytes, pointers are aligned to 64

using Copy = void (*)(char* to, const char* from, size_t bytes);

void copy_library(char* to, const char* from, size_t bytes) { std::memcpy(to, from, bytes); }

#if defined(__x86_64__)
__attribute__((target("avx2"))) void copy_ordinary(char* to, const char* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 128) {
    for (size_t j = 0; j < 128; j += 32) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + i + j), _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i + j)));
    }
  }
}

__attribute__((target("avx2"))) void copy_streaming(char* to, const char* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 128) {
    for (size_t j = 0; j < 128; j += 32) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i + j), _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i + j)));
    }
  }
  _mm_sfence();
}
#endif

std::vector<double> copy_rates(Copy copy, char* to, const char* from, size_t bytes, int rounds) {
  std::vector<double> rates;
  for (int round = -1; round < rounds; ++round) {
    const auto start = Clock::now();
#pragma omp parallel
    {
      const size_t threads = static_cast<size_t>(omp_get_num_threads());
      const size_t each = bytes / threads / 256 * 256;
      const size_t first = each * static_cast<size_t>(omp_get_thread_num());
      const bool last = static_cast<size_t>(omp_get_thread_num()) + 1 == threads;
      copy(to + first, from + first, last ? bytes - first : each);
    }
    // The first round also brings the threads up.
    if (round >= 0) rates.push_back(2.0 * static_cast<double>(bytes) / seconds_since(start));
  }
  return rates;
}

// ---- multiply-adds. Independent sums enough to hide the latency of one; the loop's result is returned, so that it is computed.

using Multiply = double (*)(int64_t steps);
constexpr int kSums = 12;

double multiply_portable(int64_t steps) {
  typedef float Vector __attribute__((vector_size(16)));
  Vector sums[kSums];
  for (auto& sum : sums) sum = Vector{} + 1.0f;
  const Vector factor = Vector{} + 0.999f, term = Vector{} + 0.001f;
  for (int64_t step = 0; step < steps; ++step) {
    for (auto& sum : sums) sum = sum * factor + term;
  }
  double total = 0;
  for (const auto& sum : sums) total += sum[0];
  return total;
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) double multiply_avx2(int64_t steps) {
  __m256 sums[kSums];
  for (auto& sum : sums) sum = _mm256_set1_ps(1.0f);
  const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(0.001f);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = _mm256_fmadd_ps(sums[i], factor, term);
  }
  double total = 0;
  for (const auto& sum : sums) total += _mm256_cvtss_f32(sum);
  return total;
}

__attribute__((target("avx512f"))) double multiply_avx512(int64_t steps) {
  __m512 sums[kSums];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  const __m512 factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps(0.001f);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_fmadd_ps(sums[i], factor, term);
  }
  double total = 0;
  for (const auto& sum : sums) total += _mm512_cvtss_f32(sum);
  return total;
}

__attribute__((target("avx512f,avx512bw,avx512bf16"))) double multiply_avx512_bf16(int64_t steps) {
  __m512 sums[kSums];
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0f);
  // Halves of 2^-60: what is added is too small to change a sum, which must not overflow.
  const __m512bh factor = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x2180));
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], factor, factor);
  }
  double total = 0;
  for (const auto& sum : sums) total += _mm512_cvtss_f32(sum);
  return total;
}
#endif

volatile double sink;

/// `operations`: multiplications plus additions of one step.
std::vector<double> multiply_rates(Multiply multiply, double operations, int rounds) {
  constexpr int64_t kSteps = 4 << 20;
  std::vector<double> rates;
  for (int round = -1; round < rounds; ++round) {
    double total = 0;
    int threads = 1;
    const auto start = Clock::now();
#pragma omp parallel reduction(+ : total)
    {
#pragma omp single
      threads = omp_get_num_threads();
      total += multiply(kSteps);
    }
    const double seconds = seconds_since(start);
    sink = total;
    if (round >= 0) rates.push_back(operations * static_cast<double>(kSteps) * threads / seconds);
  }
  return rates;
}

// ---- output

std::string list(const std::vector<double>& values) {
  std::string text = "[";
  for (double value : values) {
    char number[32];
    std::snprintf(number, sizeof number, "%s%.6g", text.size() > 1 ? ", " : "", value);
    text += number;
  }
  return text + "]";
}

void print_rates(const char* name, const char* by, const std::vector<double>& rates, const char* end) {
  std::printf("  \"%s\": {\"by\": \"%s\", \"best\": %.6g, \"samples\": %s}%s\n", name, by, *std::max_element(rates.begin(), rates.end()),
              list(rates).c_str(), end);
}

}  // namespace

int main(int argc, char** argv) {
  const size_t bytes = (argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 256) << 20;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 10;
  if (bytes == 0 || rounds < 1) {
    std::fprintf(stderr, "usage: ceilings [MEBIBYTES_OF_A_BUFFER [ROUNDS]]\n");
    return 2;
  }
  char* from = static_cast<char*>(std::aligned_alloc(64, bytes));
  char* to = static_cast<char*>(std::aligned_alloc(64, bytes));
  if (from == nullptr || to == nullptr) {
    std::fprintf(stderr, "ceilings: no memory for two buffers of %zu MiB\n", bytes >> 20);
    return 1;
  }
  // Every page is first touched by the thread that copies it.
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < static_cast<int64_t>(bytes); i += 4096) {
    std::memset(from + i, 1, 4096);
    std::memset(to + i, 2, 4096);
  }

  struct Way {
    const char* name;
    Copy copy;
  };
  std::vector<Way> ways = {{"memcpy", copy_library}};
  const char* f32_name = "portable";
  Multiply f32 = multiply_portable;
  double f32_operations = 2.0 * kSums * 4;
  Multiply bf16 = nullptr;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    ways.push_back({"ordinary", copy_ordinary});
    ways.push_back({"non-temporal", copy_streaming});
    f32_name = "AVX2 FMA", f32 = multiply_avx2, f32_operations = 2.0 * kSums * 8;
  }
  if (__builtin_cpu_supports("avx512f")) f32_name = "AVX-512 FMA", f32 = multiply_avx512, f32_operations = 2.0 * kSums * 16;
  if (__builtin_cpu_supports("avx512bf16")) bf16 = multiply_avx512_bf16;
#endif

  std::printf("{\n  \"threads\": %d,\n  \"buffer_bytes\": %zu,\n", omp_get_max_threads(), bytes);
  double best = 0;
  const char* by = "";
  std::printf("  \"copies\": {");
  const char* separator = "";
  for (const Way& way : ways) {
    const std::vector<double> rates = copy_rates(way.copy, to, from, bytes, rounds);
    std::printf("%s\"%s\": %s", separator, way.name, list(rates).c_str());
    separator = ", ";
    const double largest = *std::max_element(rates.begin(), rates.end());
    if (largest > best) best = largest, by = way.name;
  }
  std::printf("},\n  \"copy\": {\"by\": \"%s\", \"best\": %.6g},\n", by, best);
  if (std::memcmp(from, to, bytes) != 0) {
    std::fprintf(stderr, "ceilings: a copy differs from the original\n");
    return 1;
  }
  const std::vector<double> f32_rates = multiply_rates(f32, f32_operations, rounds);
  print_rates("f32", f32_name, f32_rates, ",");
  if (bf16 != nullptr) {
    print_rates("bf16", "AVX-512 BF16 dot products", multiply_rates(bf16, 4.0 * kSums * 16, rounds), "");
  } else {
    print_rates("bf16", (std::string("widened, ") + f32_name).c_str(), f32_rates, "");
  }
  std::printf("}\n");
  std::free(from);
  std::free(to);
  return 0;
}
