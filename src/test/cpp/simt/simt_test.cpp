// SPDX-License-Identifier: Apache-2.0
// The simulated device against the documented semantics of the instructions it stands for.
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "runtime/device.h"

using namespace molfuse;
using namespace molfuse::device;

namespace {

/// Runs body at several seeds; true if at any of them it throws an Error whose text holds `part`, or (part empty) says it is wrong.
bool found_at_some_seed(const std::function<bool()>& right, const std::string& part = "") {
  const simt::Settings before = simt::settings();
  bool found = false;
  for (uint64_t seed = 1; seed <= 40 && !found; ++seed) {
    simt::settings().seed = seed;
    try {
      found = !right() && part.empty();
    } catch (const simt::Error& error) {
      found = !part.empty() && std::string(error.what()).find(part) != std::string::npos;
      EXPECT_TRUE(found) << error.what();
    }
  }
  simt::settings() = before;
  return found;
}

void expect_error(const char* part, int threads, size_t shared, const std::function<void()>& body) {
  try {
    simt::run("kernel", {1, 1, 1}, threads, shared, body);
    ADD_FAILURE() << "expected an error with " << part;
  } catch (const simt::Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("kernel, block (0,0,0)"), std::string::npos) << error.what();
  }
}

TEST(Simt, EveryThreadOfEveryBlockRunsOnce) {
  std::multiset<std::vector<int>> seen;
  simt::run("kernel", {3, 2, 2}, 70, 0, [&] { seen.insert({block_x(), block_y(), block_z(), thread_index(), grid_x(), grid_y(), block_threads()}); });
  EXPECT_EQ(seen.size(), 3u * 2 * 2 * 70);
  EXPECT_EQ(std::set<std::vector<int>>(seen.begin(), seen.end()).size(), seen.size());
  for (const auto& at : seen) {
    EXPECT_TRUE(at[0] < 3 && at[1] < 2 && at[2] < 2 && at[3] < 70);
    EXPECT_EQ(std::vector<int>(at.begin() + 4, at.end()), (std::vector<int>{3, 2, 70}));
  }
}

TEST(Simt, SeedsChangeTheOrderOfThreadsAndBlocks) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    simt::settings().seed = seed;
    std::vector<int> order;
    simt::run("kernel", {2, 1, 1}, 64, 0, [&] {
      order.push_back(block_x() * 64 + thread_index());
      sync_block();
      order.push_back(block_x() * 64 + thread_index());
    });
    orders.insert(order);
  }
  simt::settings().seed = 1;
  EXPECT_GE(orders.size(), 8u);
}

TEST(Simt, ShufflesReadTheLaneTheyName) {
  simt::run("kernel", {1, 1, 1}, 64, 0, [] {
    const int lane = lane_index(), value = thread_index() * 3;
    const int base = warp_index() * kWarp;
    EXPECT_EQ(shuffle(value, 5), (base + 5) * 3);
    EXPECT_EQ(shuffle(value, (lane + 1) % kWarp), (base + (lane + 1) % kWarp) * 3);
    EXPECT_EQ(shuffle(value, 2, 8), (base + lane / 8 * 8 + 2) * 3);
    EXPECT_EQ(shuffle(value, 11, 8), (base + lane / 8 * 8 + 3) * 3);  // modulo the width
    EXPECT_EQ(shuffle_xor(value, 16), (base + (lane ^ 16)) * 3);
    EXPECT_EQ(shuffle(0.5 * value, 31), 0.5 * (base + 31) * 3);
    EXPECT_EQ(ballot(lane % 3 == 0), 0x49249249u);
    EXPECT_EQ(group_sum(1.0f + static_cast<float>(lane)), 528.0f);
    EXPECT_EQ(group_sum<4>(static_cast<float>(lane)), static_cast<float>(lane / 4 * 16 + 6));
    EXPECT_EQ(group_maximum<8>(static_cast<float>(-lane)), static_cast<float>(-(lane / 8 * 8)));
    EXPECT_TRUE(is_nan(group_maximum(lane == 7 ? NAN : 1.0f)));
  });
}

TEST(Simt, BytesGoWhereTheSelectorSays) {
  EXPECT_EQ(permute_bytes(0x33221100u, 0x77665544u, 0x5410u), 0x55441100u);
  EXPECT_EQ(permute_bytes(0x33221100u, 0x77665544u, 0x7632u), 0x77663322u);
  EXPECT_EQ(permute_bytes(0x33221100u, 0x77665544u, 0x0077u), 0x00007777u);
}

TEST(Simt, LanesMustComeToTheSameOperation) {
  expect_error("of the mask is in", 32, 0, [] {
    if (lane_index() < 16) {
      ballot(true);
    } else {
      shuffle(1, 0);
    }
  });
  expect_error("has returned", 32, 0, [] {
    if (lane_index() == 3) return;
    for (int n = 0; n < 100; ++n) shuffle(1, 0);
  });
  expect_error("does not exist", 40, 0, [] { shuffle(1, 0); });
}

TEST(Simt, BarriersWaitForTheirThreads) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    simt::settings().seed = seed;
    int arrived = 0, pair = 0;
    simt::run("kernel", {1, 1, 1}, 96, 0, [&] {
      ++arrived;
      sync_block();
      EXPECT_EQ(arrived, 96);
      if (warp_index() < 2) {
        ++pair;
        sync_named(3, 64);
        EXPECT_EQ(pair, 64);
      }
      sync_block();
      ++arrived;
      sync_block();
      EXPECT_EQ(arrived, 192);
    });
  }
  simt::settings().seed = 1;
  expect_error("no thread can go on", 64, 0, [] {
    if (warp_index() == 0) sync_block();
  });
  expect_error("threads, others wait at it for", 96, 0, [] { sync_named(1, warp_index() == 0 ? 64 : 96); });
  expect_error("barrier 1 for 33 threads", 64, 0, [] { sync_named(1, 33); });
}

// ---- a kernel, and copies of it with one thing wrong

enum class Fault { none, no_barrier, no_second_barrier, wrong_index };

/// Reverses each run of 64 numbers through shared memory, twice, adding one the second time.
template <Fault FAULT>
MOLFUSE_KERNEL(64, 1) reverse(const float* from, float* to) {
  float* tile = reinterpret_cast<float*>(shared_memory());
  const int n = thread_index(), base = block_x() * 64;
  store(tile + n, load(from + base + n));
  if (FAULT != Fault::no_barrier) sync_block();
  const float reversed = load(tile + (FAULT == Fault::wrong_index ? 64 : 63) - n);
  if (FAULT != Fault::no_second_barrier) sync_block();
  store(tile + n, reversed + 1);
  sync_block();
  store(to + base + n, load(tile + 63 - n));
}

template <Fault FAULT>
bool reverses() {
  std::vector<float> from(128), to(128, -1);
  for (size_t n = 0; n < from.size(); ++n) from[n] = static_cast<float>(n * n);
  const simt::Memory known_from(from.data(), from.size() * 4), known_to(to.data(), to.size() * 4);
  simt::run("reverse", {2, 1, 1}, 64, 256, [&] { reverse<FAULT>(from.data(), to.data()); });
  for (size_t n = 0; n < from.size(); ++n) {
    if (to[n] != from[n] + 1) return false;
  }
  return true;
}

TEST(Simt, FindsAMissingBarrierAndAWrongIndex) {
  EXPECT_FALSE(found_at_some_seed(reverses<Fault::none>));
  EXPECT_TRUE(found_at_some_seed(reverses<Fault::no_barrier>));
  EXPECT_TRUE(found_at_some_seed(reverses<Fault::no_second_barrier>));
  EXPECT_TRUE(found_at_some_seed(reverses<Fault::wrong_index>, "load of 4 bytes outside every known range of memory"));
}

TEST(Simt, AccessesAreAlignedAndInsideKnownMemory) {
  std::vector<float> numbers(20);
  float* aligned = numbers.data();
  while (reinterpret_cast<uintptr_t>(aligned) % 16 != 0) ++aligned;
  const simt::Memory known(aligned, 64);
  using Four = Vector<float, 4>;
  simt::run("kernel", {1, 1, 1}, 1, 0, [&] { store(reinterpret_cast<Four*>(aligned + 12), load(reinterpret_cast<Four*>(aligned))); });
  expect_error("load of 16 bytes at an address that is no multiple of 16", 1, 0, [&] { load(reinterpret_cast<Four*>(aligned + 1)); });
  expect_error("store of 16 bytes outside", 1, 0, [&] { store(reinterpret_cast<Four*>(aligned + 16), Four{}); });
  expect_error("load of 4 bytes outside", 1, 0, [&] { load(aligned - 1); });
  expect_error("load of 4 bytes outside", 1, 256, [&] { load(reinterpret_cast<float*>(shared_memory() + 256)); });
  simt::run("kernel", {1, 1, 1}, 1, 256, [&] { EXPECT_TRUE(is_nan(load(reinterpret_cast<float*>(shared_memory() + 252)))); });
  EXPECT_THROW(simt::run("kernel", {1, 1, 1}, 2048, 0, [] {}), simt::Error);
  EXPECT_THROW(simt::run("kernel", {1, 0, 1}, 32, 0, [] {}), simt::Error);
  EXPECT_THROW(simt::run("kernel", {1, 1, 1}, 32, size_t{1} << 20, [] {}), simt::Error);
}

TEST(Simt, AsynchronousCopiesHappenByTheirWait) {
  std::vector<float> from(64 * 4);
  for (size_t n = 0; n < from.size(); ++n) from[n] = static_cast<float>(n);
  const simt::Memory known(from.data(), from.size() * 4);
  auto copies = [&](bool wait) {
    bool right = true;
    simt::run("kernel", {1, 1, 1}, 64, 64 * 16, [&] {
      const int n = thread_index();
      float* to = reinterpret_cast<float*>(shared_memory()) + 4 * n;
      copy_async(to, from.data() + 4 * n, n != 5);
      commit_copies();
      if (wait) wait_copies<0>();
      for (int i = 0; i < 4; ++i) right = right && load(to + i) == (n == 5 ? 0.0f : from[static_cast<size_t>(4 * n + i)]);
      wait_copies<0>();
    });
    return right;
  };
  EXPECT_FALSE(found_at_some_seed([&] { return copies(true); }));
  EXPECT_TRUE(found_at_some_seed([&] { return copies(false); }));
  EXPECT_TRUE(found_at_some_seed(
      [&] {
        simt::run("kernel", {1, 1, 1}, 1, 16, [&] { copy_async(shared_memory(), from.data()); });
        return true;
      },
      "nobody waited for"));
}

// ---- tensor cores: fragments are put together here from the tables of the PTX manual, and compared with whole matrices

template <class T>
uint32_t pair(float low, float high) { return from_float<T>(low).bits | static_cast<uint32_t>(from_float<T>(high).bits) << 16; }

template <class T>
void check_products() {
  float a[16][16], b[16][8], c[16][8], d[16][8] = {};
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) a[i][k] = static_cast<float>((i * 7 + k * 3) % 11 - 5) / 4;
    for (int j = 0; j < 8; ++j) c[i][j] = static_cast<float>(i - 2 * j);
  }
  for (int k = 0; k < 16; ++k) {
    for (int j = 0; j < 8; ++j) b[k][j] = static_cast<float>((k * 5 + j * 2) % 9 - 4) / 2;
  }
  simt::run("kernel", {1, 1, 1}, 32, 0, [&] {
    const int g = lane_index() / 4, t = lane_index() % 4;
    const uint32_t fa[4] = {pair<T>(a[g][2 * t], a[g][2 * t + 1]), pair<T>(a[g + 8][2 * t], a[g + 8][2 * t + 1]),
                            pair<T>(a[g][2 * t + 8], a[g][2 * t + 9]), pair<T>(a[g + 8][2 * t + 8], a[g + 8][2 * t + 9])};
    const uint32_t fb[2] = {pair<T>(b[2 * t][g], b[2 * t + 1][g]), pair<T>(b[2 * t + 8][g], b[2 * t + 9][g])};
    float fd[4] = {c[g][2 * t], c[g][2 * t + 1], c[g + 8][2 * t], c[g + 8][2 * t + 1]};
    multiply_add<T>(fd, fa, fb);
    d[g][2 * t] = fd[0];
    d[g][2 * t + 1] = fd[1];
    d[g + 8][2 * t] = fd[2];
    d[g + 8][2 * t + 1] = fd[3];
  });
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float sum = c[i][j];  // all numbers here are exact in every type
      for (int k = 0; k < 16; ++k) sum += a[i][k] * b[k][j];
      EXPECT_EQ(d[i][j], sum) << i << " " << j;
    }
  }
}

TEST(Simt, TensorCoresMultiplyFragments) {
  check_products<f16>();
  check_products<bf16>();
  float a[16][8], b[8][8], d[16][8] = {};
  for (int k = 0; k < 8; ++k) {
    for (int i = 0; i < 16; ++i) a[i][k] = static_cast<float>((i * 3 + k) % 7 - 3);
    for (int j = 0; j < 8; ++j) b[k][j] = static_cast<float>((k + 2 * j) % 5) / 8;
  }
  simt::run("kernel", {1, 1, 1}, 32, 0, [&] {
    const int g = lane_index() / 4, t = lane_index() % 4;
    const uint32_t fa[4] = {to_tf32(a[g][t]), to_tf32(a[g + 8][t]), to_tf32(a[g][t + 4]), to_tf32(a[g + 8][t + 4])};
    const uint32_t fb[2] = {to_tf32(b[t][g]), to_tf32(b[t + 4][g])};
    float fd[4] = {};
    multiply_add_tf32(fd, fa, fb);
    for (int n = 0; n < 4; ++n) d[g + n / 2 * 8][2 * t + n % 2] = fd[n];
  });
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float sum = 0;
      for (int k = 0; k < 8; ++k) sum += a[i][k] * b[k][j];
      EXPECT_EQ(d[i][j], sum) << i << " " << j;
    }
  }
  EXPECT_EQ(to_tf32(1.0f + 0x1p-11f), bits_of(1.0f + 0x1p-10f));  // a tie goes away from zero
  EXPECT_EQ(to_tf32(-1.0f - 0x1p-12f), bits_of(-1.0f));
}

TEST(Simt, MatricesAreLoadedAndStoredByRows) {
  simt::run("kernel", {1, 1, 1}, 32, 1024, [&] {
    uint16_t* shared = reinterpret_cast<uint16_t*>(shared_memory());  // four matrices [8,8], then four more
    const int lane = lane_index(), g = lane / 4, t = lane % 4;
    if (lane == 0) {
      for (uint16_t n = 0; n < 256; ++n) store(shared + n, n);
    }
    sync_warp();
    uint32_t r[4], transposed[4];
    load_matrices(r, shared + 8 * lane);
    load_matrices_transposed(transposed, shared + 8 * lane);
    for (int m = 0; m < 4; ++m) {
      auto at = [&](int row, int column) { return static_cast<uint32_t>(64 * m + 8 * row + column); };
      EXPECT_EQ(r[m], at(g, 2 * t) | at(g, 2 * t + 1) << 16);
      EXPECT_EQ(transposed[m], at(2 * t, g) | at(2 * t + 1, g) << 16);
    }
    // Rows may lie anywhere: here in reverse.
    store_matrices(shared + 256 + 8 * (31 - lane), r);
    sync_warp();
    for (int column = 0; column < 8; ++column) EXPECT_EQ(load(shared + 256 + 8 * (31 - lane) + column), 8 * lane + column);
  });
  expect_error("no multiple of 16", 32, 1024, [] {
    uint32_t r[4];
    load_matrices(r, shared_memory() + 8);
  });
  expect_error("of shared memory", 32, 256, [] {
    uint32_t r[4];
    load_matrices(r, shared_memory() + 16 * lane_index());
  });
}

TEST(Simt, AtomicOperationsReturnTheValueBefore) {
  int counter = 0;
  const simt::Memory known(&counter, 4);
  std::set<int> before;
  simt::run("kernel", {4, 1, 1}, 64, 0, [&] { before.insert(atomic_add(&counter, 1)); });
  EXPECT_EQ(counter, 256);
  EXPECT_EQ(before.size(), 256u);
}

TEST(Simt, FastPowersOfTwoAreWithinTwoUnitsAndFlushed) {
  simt::run("powers", {}, 1, 0, [] {
    for (float x = -125.75f; x < 127; x += 0.37f) {
      const double exact = std::exp2(static_cast<double>(x));
      EXPECT_NEAR(device::exp2_fast(x), exact, 2.4e-7 * exact) << x;
    }
    EXPECT_EQ(device::exp2_fast(0), 1);
    EXPECT_EQ(device::exp2_fast(-126.5f), 0);
    EXPECT_EQ(device::exp2_fast(-device::infinity()), 0);
    EXPECT_EQ(device::exp2_fast(200), device::infinity());
    EXPECT_TRUE(std::isnan(device::exp2_fast(device::quiet_nan())));
    EXPECT_EQ(device::larger(-1, 2), 2);
    EXPECT_EQ(device::larger(device::quiet_nan(), 2), 2);
    EXPECT_EQ(device::larger(2, device::quiet_nan()), 2);
    EXPECT_TRUE(std::isnan(device::larger(device::quiet_nan(), device::quiet_nan())));
  });
}

TEST(Simt, SixteenBitTypesAreRoundedToNearestEven) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const f16 half{static_cast<uint16_t>(bits)};
    const bf16 brain{static_cast<uint16_t>(bits)};
    if (!is_nan(to_float(half))) { EXPECT_EQ(from_float<f16>(to_float(half)).bits, half.bits); }
    if (!is_nan(to_float(brain))) { EXPECT_EQ(from_float<bf16>(to_float(brain)).bits, brain.bits); }
  }
  EXPECT_EQ(from_float<f16>(1.0f + 1.0f / 2048).bits, 0x3C00);        // a tie goes to even
  EXPECT_EQ(from_float<f16>(1.0f + 3.0f / 2048).bits, 0x3C02);
  EXPECT_EQ(from_float<f16>(65519.0f).bits, 0x7BFF);
  EXPECT_EQ(from_float<f16>(65520.0f).bits, 0x7C00);
  EXPECT_EQ(from_float<f16>(-2.98023224e-8f).bits, 0x8000);           // half of the smallest: to even, that is to zero
  EXPECT_EQ(from_float<f16>(3.1e-8f).bits, 0x0001);
  EXPECT_EQ(from_float<bf16>(1.0f + 1.0f / 256).bits, 0x3F80);
  EXPECT_EQ(from_float<bf16>(1.0f + 3.0f / 256).bits, 0x3F82);
}

TEST(Simt, ArithmeticAtItsEdges) {
  EXPECT_EQ(exp2_fast(10.0f), 1024.0f);
  EXPECT_EQ(exp2_fast(-infinity()), 0.0f);
  EXPECT_EQ(exp2_fast(-126.0f), float_from_bits(0x00800000u));
  EXPECT_EQ(exp2_fast(-127.0f), 0.0f);  // no subnormal numbers
  EXPECT_EQ(exp2_fast(128.0f), infinity());
  EXPECT_TRUE(is_nan(exp2_fast(quiet_nan())));
  EXPECT_EQ(larger(-3.0f, 2.0f), 2.0f);
  EXPECT_EQ(larger(quiet_nan(), 2.0f), 2.0f);
  EXPECT_EQ(larger(2.0f, quiet_nan()), 2.0f);
  EXPECT_EQ(pack<f16>(1.0f, -2.0f), 0xC0003C00u);
}

}  // namespace
