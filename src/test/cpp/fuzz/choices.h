// SPDX-License-Identifier: Apache-2.0
// Where a fuzzed call takes its decisions from.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <random>

namespace molfuse_fuzz {

class Choices {
 public:
  explicit Choices(uint64_t seed) : random_(seed) {}

  /// 0..below-1
  uint64_t next(uint64_t below) { return random_() % below; }
  int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(next(static_cast<uint64_t>(high - low) + 1)); }
  bool one_in(uint64_t n) { return next(n) == n - 1; }
  template <class T>
  T of(std::initializer_list<T> values) { return values.begin()[next(values.size())]; }

  /// For numbers that no decision hangs on, such as features.
  std::mt19937_64& noise() { return random_; }

 private:
  std::mt19937_64 random_;
};

}  // namespace molfuse_fuzz
