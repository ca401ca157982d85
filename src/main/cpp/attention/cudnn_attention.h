// SPDX-License-Identifier: Apache-2.0
// Attention by libcudnn, for problems that backend.h does not refuse.
#pragma once

#include <cstddef>
#include <string>

#include "attention/kernels.h"
#include "attention/plan_cache.h"

namespace molfuse {

/// Bytes of workspace that a plan may have where the caller did not ask for cuDNN: its deterministic backward keeps scores there.
constexpr size_t kAutomaticWorkspace = size_t{256} << 20;

/// False and the reason if there is no libcudnn, or it has no plan, or one that takes more workspace.
bool run_cudnn_attention(const AttentionProblem& problem, bool backward, size_t workspace_limit, DeviceCall& call, std::string& reason);

PlanCounts cudnn_plan_counts();

// Kernels around the plan where there are key_lengths (cuda_attention_lengths.cu). lengths is int32 [3,B]: for cuDNN the rows of queries and
// of keys, at least one, since versions before 9.25 make NaN of none; then the true number of keys.
void prepare_lengths(const AttentionProblem& problem, int32_t* lengths, DeviceCall& call);
/// Writes what the contract has for sequences without keys, and for keys past a sequence's end: zeros, and -inf to lse.
void finish_lengths(const AttentionProblem& problem, bool backward, const int32_t* lengths, DeviceCall& call);

}  // namespace molfuse
