// SPDX-License-Identifier: Apache-2.0
#include "runtime/backend_setting.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "runtime/check.h"

namespace molfuse {
namespace {

bool parse(const char* text, AttentionBackend* backend) noexcept {
  for (const AttentionBackend candidate : {AttentionBackend::automatic, AttentionBackend::own, AttentionBackend::cudnn}) {
    if (std::strcmp(text, backend_name(candidate)) == 0) {
      *backend = candidate;
      return true;
    }
  }
  return false;
}

int initial() noexcept {
  AttentionBackend wanted = AttentionBackend::automatic;
  const char* text = std::getenv("MOLFUSE_ATTENTION_BACKEND");
  // A wrong word is not worth failing every program for: capabilities show what is in use.
  if (text != nullptr) parse(text, &wanted);
  return static_cast<int>(wanted);
}

std::atomic<int>& setting() noexcept {
  static std::atomic<int> backend{initial()};
  return backend;
}

}  // namespace

AttentionBackend attention_backend() noexcept { return static_cast<AttentionBackend>(setting().load(std::memory_order_relaxed)); }

const char* backend_name(AttentionBackend backend) noexcept {
  switch (backend) {
    case AttentionBackend::own: return "own";
    case AttentionBackend::cudnn: return "cudnn";
    default: return "auto";
  }
}

}  // namespace molfuse

using namespace molfuse;

extern "C" molfuse_status molfuse_set_attention_backend(const char* backend) {
  return guard([&] {
    AttentionBackend wanted;
    if (backend == nullptr || !parse(backend, &wanted)) {
      invalid("backend: expected auto, own or cudnn, got %s", backend == nullptr ? "NULL" : backend);
    }
    setting().store(static_cast<int>(wanted), std::memory_order_relaxed);
  });
}
