// SPDX-License-Identifier: Apache-2.0
// A libcudnn that has a version and nothing else.
#include <cstddef>

extern "C" size_t cudnnGetVersion() { return MOLFUSE_FAKE_CUDNN; }
