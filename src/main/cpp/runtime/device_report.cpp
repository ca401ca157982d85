// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_call.h"

namespace molfuse {

void throw_report(unsigned long long word) {
  if (word == 0) return;
  const auto fault = static_cast<Fault>(word >> (kReportPositionBits + kReportValueBits));
  const auto position = static_cast<long long>(word & ((1ull << kReportPositionBits) - 1));
  // Shifted up and down again, so that the sign is kept.
  const auto value = static_cast<long long>(static_cast<int64_t>(word << (64 - kReportPositionBits - kReportValueBits)) >> (64 - kReportValueBits));
  const char* what = "an argument";
  const char* expected = "a valid value";
  switch (fault) {
    case Fault::graph_ptr: what = "graph_ptr", expected = "ascending entries from 0 to the number of nodes"; break;
    case Fault::row_ptr: what = "row_ptr", expected = "ascending entries from 0 to the number of edges"; break;
    case Fault::edge_index: what = "source or target of an edge", expected = "the number of a node"; break;
    case Fault::target: what = "targets", expected = "a class or pad_index"; break;
    case Fault::key_lengths: what = "key_lengths", expected = "lengths in 0..M"; break;
    case Fault::cu_seqlens_q: what = "cu_seqlens_q", expected = "ascending entries from 0 to Tq, no further apart than max_seqlen_q"; break;
    case Fault::cu_seqlens_k: what = "cu_seqlens_k", expected = "ascending entries from 0 to Tk, no further apart than max_seqlen_k"; break;
    case Fault::lengths: what = "lengths", expected = "lengths that the cache has room for"; break;
    default: break;
  }
  // Larger values do not fit a report.
  const char* cut = value == kReportValueLimit - 1 ? " or more" : value == -kReportValueLimit ? " or less" : "";
  invalid("%s: expected %s, got %lld%s at position %lld (found on the device by an earlier call, whose results are not valid)", what, expected,
          value, cut, position);
}

}  // namespace molfuse
