// SPDX-License-Identifier: Apache-2.0
#include "attention/backend.h"

#include <algorithm>

#include "attention/cudnn_attention.h"
#include "runtime/check.h"
#include "runtime/device_call.h"

namespace molfuse {
namespace {

constexpr BackendRow kRows[] = {
#include "attention/attention_backends.inc"
    {}};  // holds for nothing
constexpr int64_t kRowCount = static_cast<int64_t>(sizeof kRows / sizeof kRows[0]) - 1;

// cuDNN's kernels load 16 bytes at a time and do not check that they may.
constexpr int64_t kAlignment = 16;
// Below which no offset overflows 32 bits, wherever cuDNN computes one so.
constexpr int64_t kMostElements = int64_t{1} << 31;

AttentionKind kind_of(const AttentionProblem& p) {
  if (p.bias != nullptr) return p.causal ? AttentionKind::causal_bias : AttentionKind::bias;
  return p.causal ? AttentionKind::causal : AttentionKind::plain;
}

const char* operand_refusal(const AttentionProblem& p, const AttentionOperand& operand, int64_t rows) {
  if (reinterpret_cast<uintptr_t>(operand.data) % kAlignment != 0) return "starts at no multiple of 16 bytes";
  const int64_t size[3] = {p.batch, p.heads, rows}, stride[3] = {operand.batch, operand.head, operand.row};
  int64_t last = p.dim - 1;
  for (int d = 0; d < 3; ++d) {
    if (size[d] == 1) continue;
    if (stride[d] <= 0) return "has a stride that is not positive";
    if (stride[d] % (kAlignment / 2) != 0) return "has a stride that is no multiple of 16 bytes";
    if (stride[d] >= kMostElements) return "is too large";
    last += (size[d] - 1) * stride[d];
  }
  return last >= kMostElements ? "is too large" : nullptr;
}

std::string bias_refusal(const AttentionProblem& p, bool backward) {
  if (p.bias_dtype != p.dtype && p.bias_dtype != MOLFUSE_F32) return "bias has another element type";
  if (p.bias_size[2] != p.queries || p.bias_size[3] != p.keys) return "bias is broadcast along queries or keys";
  if (p.keys > 1 && p.bias_column != 1) return "bias has a stride in its last dimension";
  if (reinterpret_cast<uintptr_t>(p.bias) % kAlignment != 0) return "bias starts at no multiple of 16 bytes";
  if (p.bias_row < 0 || p.bias_head < 0 || p.bias_batch < 0) return "bias has a negative stride";
  // cuDNN has it in 16 bits only, and sums over broadcast dimensions by atomic additions, whose order is not fixed.
  if (backward && p.grad_bias != nullptr) return "grad_bias is f32";
  return "";
}

}  // namespace

AttentionBackend measured_backend(const BackendRow* rows, int64_t count, const AttentionProblem& p, bool backward, int capability) {
  const int64_t heads = p.batch * p.heads;
  for (int64_t n = 0; n < count; ++n) {
    const BackendRow& row = rows[n];
    if (row.capability == capability && row.dtype == p.dtype && row.dim == p.dim && row.backward == backward && row.kind == kind_of(p) &&
        row.queries_from <= p.queries && p.queries <= row.queries_to && row.keys_from <= p.keys && p.keys <= row.keys_to &&
        row.heads_from <= heads && heads <= row.heads_to) {
      return row.backend;
    }
  }
  return AttentionBackend::own;
}

std::string cudnn_refusal(const AttentionProblem& p, bool backward, int major) {
  if (p.dtype != MOLFUSE_F16 && p.dtype != MOLFUSE_BF16) return std::string("the element type is ") + molfuse_dtype_name(p.dtype);
  if (p.cu_q != nullptr) return "the sequences are packed";
  if (p.relative != nullptr) return "there is a relative_bias";
  if (p.dropout_p > 0) return "there is dropout, and its random numbers are others";
  if (p.key_lengths.data != nullptr && std::max(p.batch, p.heads) > 65535) return "key_lengths and more than 65535 sequences or heads";
  const int64_t widest = major == 9 || (!backward && major == 8) ? 256 : 128;
  if (p.dim > widest) return "the head size is above " + std::to_string(widest);
  if (p.causal && p.queries > p.keys) return "the first queries see no key";
  // Its diagonal would end at each sequence's last key.
  if (p.causal && p.queries != p.keys && p.key_lengths.data != nullptr) return "key_lengths and a causal mask with N != M";
  if (p.causal && p.queries != p.keys && p.queries > 1 && p.bias != nullptr) return "a bias and a causal mask with N != M";
  if (backward && p.queries == 1 && p.keys == 1) return "there is one query and one key";
  if (p.bias != nullptr) {
    const std::string reason = bias_refusal(p, backward);
    if (!reason.empty()) return reason;
  }
  if (reinterpret_cast<uintptr_t>(p.lse) % kAlignment != 0) return "lse starts at no multiple of 16 bytes";
  if (p.lse != nullptr && !((p.queries == 1 || p.lse_row == 1) && (p.heads == 1 || p.lse_head == p.queries) &&
                            (p.batch == 1 || p.lse_batch == p.heads * p.queries))) {
    return "lse is not contiguous";
  }
  struct Named {
    const char* name;
    const AttentionOperand& operand;
    int64_t rows;
    bool backward;
  };
  for (const Named& one : {Named{"query", p.query, p.queries, false}, {"key", p.key, p.keys, false}, {"value", p.value, p.keys, false},
                           {"out", p.out, p.queries, false}, {"grad_out", p.grad_out, p.queries, true},
                           {"grad_query", p.grad_query, p.queries, true}, {"grad_key", p.grad_key, p.keys, true},
                           {"grad_value", p.grad_value, p.keys, true}}) {
    if (one.backward && !backward) continue;
    if (one.operand.data == nullptr) return std::string(one.name) + " is not asked for";
    if (const char* reason = operand_refusal(p, one.operand, one.rows)) return std::string(one.name) + " " + reason;
  }
  return "";
}

#if defined(MOLFUSE_WITH_CUDA)
namespace {

/// Whether cuDNN did it.
bool by_cudnn(const AttentionProblem& p, bool backward, DeviceCall& call) {
  const AttentionBackend setting = attention_backend();
  const DeviceInfo& device = call.device();
  if (setting == AttentionBackend::own || p.batch == 0 || p.heads == 0 || p.queries == 0 || p.keys == 0) return false;
  const bool forced = setting == AttentionBackend::cudnn;
  if (!forced) {
    // Whether what lies past key_lengths can be anything, infinities and NaN too, is nowhere documented of cuDNN; here it is.
    if (p.key_lengths.data != nullptr) return false;
    if (measured_backend(kRows, kRowCount, p, backward, 10 * device.major + device.minor) != AttentionBackend::cudnn) return false;
  }
  std::string reason = cudnn_refusal(p, backward, device.major);
  if (reason.empty() && run_cudnn_attention(p, backward, forced ? SIZE_MAX : kAutomaticWorkspace, call, reason)) return true;
  if (forced) unsupported("attention by cuDNN, which molfuse_set_attention_backend asks for: %s", reason.c_str());
  return false;
}

}  // namespace

void attention_forward_on_device(const AttentionProblem& p, DeviceCall& call) {
  if (!by_cudnn(p, false, call)) attention_forward_device(p, call);
}

void attention_backward_on_device(const AttentionProblem& p, DeviceCall& call) {
  if (!by_cudnn(p, true, call)) attention_backward_device(p, call);
}
#endif

}  // namespace molfuse
