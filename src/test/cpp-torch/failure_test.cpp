// SPDX-License-Identifier: Apache-2.0
// Failures of libmolfuse as libtorch's exceptions.
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <utility>

#include "molfuse/reparameterize.h"
#include "support.h"

namespace {
molfuse_status next_status = MOLFUSE_OK;
}

// Being the program's, it comes before libmolfuse's own for libmolfuse_torch.
molfuse_status molfuse_reparameterize_forward(const molfuse_reparameterize_args* args, const molfuse_execution* execution) {
  static const auto real =
      reinterpret_cast<decltype(&molfuse_reparameterize_forward)>(dlsym(RTLD_NEXT, "molfuse_reparameterize_forward"));
  if (next_status == MOLFUSE_OK) return real(args, execution);
  molfuse_set_cpu_level("what went wrong");  // for the text
  return std::exchange(next_status, MOLFUSE_OK);
}

namespace molfuse::test {
namespace {

template <class Exception>
void expect_exception(molfuse_status status, const char* prefix) {
  const Tensor x = at::ones({2, 3});
  next_status = status;
  try {
    api::reparameterize(x, x, 1, 0);
    ADD_FAILURE() << "no exception for status " << status;
  } catch (const c10::Error& error) {
    EXPECT_EQ(typeid(error), typeid(Exception)) << error.what();
    const std::string text = error.what_without_backtrace();
    EXPECT_EQ(text.rfind(prefix, 0), 0u) << text;
    EXPECT_NE(text.find("what went wrong"), std::string::npos) << text;
  }
  EXPECT_TRUE(at::isfinite(api::reparameterize(x, x, 1, 0)).all().item<bool>());
}

TEST(Failure, EachStatusHasItsException) {
  expect_exception<c10::ValueError>(MOLFUSE_INVALID_ARGUMENT, "molfuse: invalid argument: reparameterize: ");
  expect_exception<c10::NotImplementedError>(MOLFUSE_UNSUPPORTED, "molfuse: unsupported: reparameterize: ");
  expect_exception<c10::OutOfMemoryError>(MOLFUSE_OUT_OF_MEMORY, "molfuse: out of memory: reparameterize: ");
  expect_exception<c10::Error>(MOLFUSE_INTERNAL_ERROR, "molfuse: internal error: reparameterize: ");
}

TEST(Failure, DevicesAreDescribedWhereThereAreNone) {
  EXPECT_NE(api::device_info(0).find("\"device_count\":"), std::string::npos) << api::device_info(0);
  EXPECT_THROW(api::device_info(-1), c10::ValueError);
  EXPECT_THROW(api::device_info(int64_t{1} << 40), c10::ValueError);
}

}  // namespace
}  // namespace molfuse::test
