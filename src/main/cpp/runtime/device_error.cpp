// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_error.h"

#include <algorithm>
#include <iterator>

namespace molfuse {
namespace {

enum class Kind {
  memory,
  unsupported,  // the device, or the driver, cannot do this
  invalid,      // the caller's execution is wrong
  fault,        // a kernel went wrong, of this call or of an earlier one of anybody's; the process cannot use the device any more
  capture
};

struct Row {
  int error;
  Kind kind;
  const char* text;
};

constexpr int kInsufficientDriver = 35;

// Numbers of the CUDA runtime; device_call.cpp holds them against the header.
constexpr Row kRows[] = {
    {kDeviceOutOfMemory, Kind::memory, nullptr},
    {34, Kind::unsupported, "the CUDA driver in this process is a stub library, meant for linking only"},
    {kInsufficientDriver, Kind::unsupported, "there is no NVIDIA driver, or it is older than this build needs"},
    {36, Kind::unsupported, "the NVIDIA driver is older than this call needs"},
    {46, Kind::unsupported, "the device is busy or forbidden to this process (see its compute mode)"},
    {100, Kind::unsupported, "there is no CUDA device"},
    {101, Kind::invalid, "execution->device_index names no device"},
    {200, Kind::unsupported, "the build's machine code is not valid for the device"},
    {209, Kind::unsupported, "the build holds no machine code for the device (MOLFUSE_CUDA_ARCHITECTURES lists what it is built for)"},
    {214, Kind::fault, "the device's memory is defective (an error that it could not correct)"},
    {218, Kind::unsupported, "the driver could not compile the build's PTX for the device"},
    {220, Kind::fault, "an NVLink error that could not be corrected"},
    {221, Kind::unsupported, "the driver's PTX compiler was not found, and the build holds no machine code for the device"},
    {222, Kind::unsupported, "the build's PTX is newer than the driver, and the build holds no machine code for the device"},
    {223, Kind::unsupported, "compiling PTX is switched off (CUDA_DISABLE_PTX_JIT), and the build holds no machine code for the device"},
    {226, Kind::fault, "an error that the device contained"},
    {400, Kind::invalid, "execution->stream is not a stream of the device, or was destroyed"},
    {700, Kind::fault, "a kernel accessed memory that the device cannot reach: freed, too small, on the host or on another device"},
    {701, Kind::unsupported, "the device has too few registers or too little shared memory for a block"},
    {702, Kind::fault, "a kernel ran longer than the device's display allows"},
    {709, Kind::fault, "the device's context was destroyed"},
    {710, Kind::fault, "a kernel failed an assertion"},
    {714, Kind::fault, "a kernel overran its stack"},
    {715, Kind::fault, "a kernel met an illegal instruction"},
    {716, Kind::fault, "a kernel accessed memory that is not aligned to its elements"},
    {717, Kind::fault, "a kernel accessed an address of the wrong kind of memory"},
    {718, Kind::fault, "a kernel jumped to an invalid address"},
    {719, Kind::fault, "a kernel failed"},
    {721, Kind::fault, "a kernel did not give its tensor memory back"},
    {802, Kind::unsupported, "the system is not ready for CUDA (NVSwitch systems need the fabric manager)"},
    {803, Kind::unsupported, "the NVIDIA driver's parts are of different versions"},
    {804, Kind::unsupported, "the installed forward-compatible driver does not support the device"},
    {810, Kind::fault, "the MPS server ended this client"},
    {900, Kind::capture, nullptr},
    {901, Kind::capture, nullptr},
    {902, Kind::capture, nullptr},
    {905, Kind::capture, nullptr},
    {906, Kind::capture, nullptr},
    {907, Kind::capture, nullptr},
    {908, Kind::capture, nullptr},
    {911, Kind::fault, "an error in a device outside of CUDA"},
};

const Row* row_of(int error) {
  const Row* found = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& row) { return row.error == error; });
  return found == std::end(kRows) ? nullptr : found;
}

}  // namespace

Error device_error(int error, const char* name, const char* description, const DeviceErrorContext& where) {
  std::string text = where.function;
  if (where.device >= 0) {
    text += ": device " + std::to_string(where.device);
    if (*where.device_name != '\0') text += std::string(" (") + where.device_name + ")";
  }
  if (*where.doing != '\0') text += std::string(": ") + where.doing;
  text += ": ";
  const std::string original = std::string(name) + ", " + description;
  const Row* row = row_of(error);
  if (row == nullptr) return {MOLFUSE_INTERNAL_ERROR, text + "CUDA: " + original};
  switch (row->kind) {
    case Kind::memory:
      return {MOLFUSE_OUT_OF_MEMORY, text + "out of device memory"};
    case Kind::unsupported:
      return {MOLFUSE_UNSUPPORTED, text + row->text + " (" + original + ")"};
    case Kind::invalid:
      return {MOLFUSE_INVALID_ARGUMENT, text + row->text + " (" + original + ")"};
    case Kind::fault:
      return {MOLFUSE_INTERNAL_ERROR,
              text + row->text + " (" + original + "). Calls are asynchronous, so that this may be the fault of any earlier one in this " +
                  "process: CUDA_LAUNCH_BLOCKING=1 or compute-sanitizer shows which. The process cannot use the device any more and must " +
                  "be started anew"};
    case Kind::capture:
      break;
  }
  return {MOLFUSE_INTERNAL_ERROR, text + "the stream's capture into a CUDA graph does not allow this (" + original + ")"};
}

std::string no_device_text(int error, const char* description, int driver_version, int runtime_version) {
  if (error == 0) return "there is no CUDA device";
  if (error == kInsufficientDriver) {
    if (driver_version == 0) return "there is no NVIDIA driver";
    return "the NVIDIA driver supports CUDA " + cuda_version_text(driver_version) + ", which is older than this build's " +
           cuda_version_text(runtime_version);
  }
  const Row* row = row_of(error);
  return row != nullptr && row->text != nullptr ? row->text : description;
}

std::string cuda_version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

bool ends_process(int error) {
  const Row* row = row_of(error);
  return row != nullptr && row->kind == Kind::fault;
}

}  // namespace molfuse
