// SPDX-License-Identifier: Apache-2.0
// What the library says about itself.
#include <torch/headeronly/version.h>

#include <cstdio>
#include <limits>
#include <string>

#include "torch/common.h"

namespace molfuse::torch_api {
namespace {

/// For loaders, which read it in the file: that of another libtorch may not even link.
[[gnu::used]] constexpr char kBuiltFor[] = "molfuse_torch for libtorch " TORCH_VERSION;

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
  json += ",\"cudnn_version\":" + std::to_string(capabilities.cudnn_version);
  json += ",\"attention_backend\":" + quoted(capabilities.attention_backend);
  return json + "}";
}

std::string device_info(int64_t device) {
  molfuse_device_info info{};
  info.struct_size = sizeof(info);
  MOLFUSE_CHECK(device >= 0 && device <= std::numeric_limits<int32_t>::max(), "device: expected the number of a device, got ", device);
  torch_ops::check_status(molfuse_get_device_info(static_cast<int32_t>(device), &info), "device_info");
  const auto number = [](int64_t value) { return std::to_string(value); };
  std::string json = "{\"device_count\":" + number(info.device_count);
  json += std::string(",\"usable\":") + (info.usable != 0 ? "true" : "false");
  json += ",\"reason\":" + quoted(info.reason);
  json += ",\"name\":" + quoted(info.name);
  json += ",\"compute_major\":" + number(info.compute_major);
  json += ",\"compute_minor\":" + number(info.compute_minor);
  json += ",\"multiprocessors\":" + number(info.multiprocessors);
  json += ",\"shared_memory_per_block\":" + number(info.shared_memory_per_block);
  json += ",\"total_memory\":" + number(info.total_memory);
  json += ",\"driver_version\":" + number(info.driver_version);
  json += ",\"runtime_version\":" + number(info.runtime_version);
  return json + "}";
}

void set_cpu_level(const std::string& level) {
  torch_ops::check_status(molfuse_set_cpu_level(level.c_str()), "set_cpu_level");
}

void set_attention_backend(const std::string& backend) {
  torch_ops::check_status(molfuse_set_attention_backend(backend.c_str()), "set_attention_backend");
}

}  // namespace molfuse::torch_api
