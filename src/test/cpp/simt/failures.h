// SPDX-License-Identifier: Apache-2.0
// Failures of the simulated device, on demand.
#pragma once

namespace simt {

/// What the next calls meet. A failure happens once.
struct Failures {
  int allocation = -1;  ///< the one after so many fails: no memory left
  int launch = -1;      ///< the one after so many fails
  int error = 0;        ///< with this cudaError_t
};
Failures& failures();

/// Scratch memory that is allocated now.
int scratch_blocks();

}  // namespace simt
