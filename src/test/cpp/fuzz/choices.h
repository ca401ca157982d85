// SPDX-License-Identifier: Apache-2.0
// Where a fuzzed call takes its decisions from: a seed, or the bytes of a coverage-guided fuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <random>

namespace molfuse_fuzz {

class Choices {
 public:
  explicit Choices(uint64_t seed) : random_(seed) {}
  Choices(const uint8_t* bytes, size_t count) : random_(0), bytes_(bytes), left_(count), guided_(true) {}

  /// 0..below-1. Bytes that have run out read as 0.
  uint64_t next(uint64_t below) {
    if (!guided_) return random_() % below;
    uint64_t value = 0;
    for (uint64_t most = below - 1; most > 0; most >>= 8) {
      value = value << 8 | (left_ > 0 ? *bytes_ : 0);
      if (left_ > 0) ++bytes_, --left_;
    }
    return value % below;
  }
  int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(next(static_cast<uint64_t>(high - low) + 1)); }
  bool one_in(uint64_t n) { return next(n) == n - 1; }
  template <class T>
  T of(std::initializer_list<T> values) { return values.begin()[next(values.size())]; }

  /// For numbers that no decision hangs on, such as features: they shall not use up the fuzzer's bytes.
  std::mt19937_64& noise() { return random_; }

 private:
  std::mt19937_64 random_;
  const uint8_t* bytes_ = nullptr;
  size_t left_ = 0;
  bool guided_ = false;
};

}  // namespace molfuse_fuzz
