// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "gpu/memory.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  // Tests that could not run have not passed.
  if (!testing::GTEST_FLAG(list_tests) && !molfuse_test::gpu::open()) return 1;
  return RUN_ALL_TESTS();
}
