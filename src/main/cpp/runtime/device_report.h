// SPDX-License-Identifier: Apache-2.0
// For kernels: reporting a wrong value that they came upon. The call's results are then NaN, zero or not written, and the library's next call on the
// device fails with the report.
#pragma once

#include "runtime/device.h"
#include "runtime/device_call.h"

namespace molfuse {
namespace device {

MOLFUSE_DEVICE void report_fault(unsigned long long* to, Fault fault, int64_t position, int64_t value) {
  const int64_t limit = kReportValueLimit;
  const int64_t cut = value < -limit ? -limit : (value > limit - 1 ? limit - 1 : value);
  const unsigned long long word = static_cast<unsigned long long>(fault) << (kReportPositionBits + kReportValueBits) |
                                  (static_cast<unsigned long long>(cut) & ((1ull << kReportValueBits) - 1)) << kReportPositionBits |
                                  (static_cast<unsigned long long>(position) & ((1ull << kReportPositionBits) - 1));
  store(to, word);
}

}  // namespace device
}  // namespace molfuse
