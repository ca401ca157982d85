// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace molfuse {

enum class AttentionBackend { automatic, own, cudnn };

/// The caller's wish: molfuse_set_attention_backend, or MOLFUSE_ATTENTION_BACKEND at the start.
AttentionBackend attention_backend() noexcept;
const char* backend_name(AttentionBackend backend) noexcept;

}  // namespace molfuse
