// SPDX-License-Identifier: Apache-2.0
// Where the logarithm of a latent variance is clamped, for the losses and for sampling alike.
#pragma once

namespace molfuse {

constexpr double kLogVarLowest = -20, kLogVarHighest = 10;

}  // namespace molfuse
