// SPDX-License-Identifier: Apache-2.0
// What the library says about itself.
#include <torch/headeronly/version.h>

#include <cstdio>
#include <string>

#include "torch/common.h"

namespace molfuse::torch_api {
namespace {

std::string quoted(const char* text) {
  std::string result = "\"";
  for (const char* c = text; *c != '\0'; ++c) {
    const auto byte = static_cast<unsigned char>(*c);
    if (byte == '"' || byte == '\\') {
      result += '\\';
      result += *c;
    } else if (byte < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x", byte);
      result += escape;
    } else {
      result += *c;
    }
  }
  return result + '"';
}

}  // namespace

std::string version() { return molfuse_version(); }

std::string info() {
  molfuse_capabilities capabilities{};
  capabilities.struct_size = sizeof(capabilities);
  torch_ops::check_status(molfuse_get_capabilities(&capabilities), "info");
  const auto boolean = [](int32_t value) { return value != 0 ? "true" : "false"; };
  std::string json = "{\"version\":" + quoted(molfuse_version());
  json += ",\"libtorch\":" + quoted(TORCH_VERSION);
  json += ",\"cpu_vector_level\":" + quoted(capabilities.cpu_vector_level);
  json += ",\"cpu_vector_best\":" + quoted(capabilities.cpu_vector_best);
  json += ",\"cpu_threads\":" + std::to_string(capabilities.cpu_threads);
  json += std::string(",\"cuda_compiled\":") + boolean(capabilities.cuda_compiled);
  json += std::string(",\"cuda_usable\":") + boolean(capabilities.cuda_usable);
  json += ",\"cuda_reason\":" + quoted(capabilities.cuda_reason);
  json += std::string(",\"cudnn_usable\":") + boolean(capabilities.cudnn_usable);
  json += ",\"cudnn_reason\":" + quoted(capabilities.cudnn_reason);
  return json + "}";
}

void set_cpu_level(const std::string& level) {
  torch_ops::check_status(molfuse_set_cpu_level(level.c_str()), "set_cpu_level");
}

}  // namespace molfuse::torch_api
