// SPDX-License-Identifier: Apache-2.0
// The C++ entry points of libmolfuse_torch: what torch.ops.molfuse.* offers, as plain functions. JavaCPP parses this file.
//
// Every function goes through the libtorch dispatcher, so autograd, autocast and meta tensors work as for torch's own
// operators. Absent optional tensors may be std::nullopt or undefined tensors.
//
// Errors are c10::Error (or a subclass) whose first line starts with one of
//   "molfuse: invalid argument: "  wrong shape, element type, device, stride or range: the caller's mistake
//   "molfuse: unsupported: "       a valid request that no backend serves here
//   "molfuse: out of memory: "     a c10::OutOfMemoryError
//   "molfuse: internal error: "
//
// Dtypes: T is f16, bf16, f32 or f64, one for all tensors so marked in an operator; S is f64 if T is f64, else f32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#pragma GCC visibility push(default)

/// The operators of torch.ops.molfuse as plain functions, and what else libmolfuse_torch gives.
namespace molfuse::torch_api {

// ---- the library -----------------------------------------------------------------------------------------------------

/// Version of libmolfuse.
std::string version();

/// One JSON object: version, libtorch, cpu_vector_level, cpu_vector_best, cpu_threads, cuda_compiled, cuda_usable,
/// cuda_reason, cudnn_usable, cudnn_reason, cudnn_version (91900 for 9.19.0, 0: none was found), attention_backend.
std::string info();

/// One JSON object about a CUDA device, see molfuse_get_device_info: device_count, usable, reason, name, compute_major, compute_minor,
/// multiprocessors, shared_memory_per_block, total_memory, driver_version, runtime_version. Device 0 may be asked for where there is none.
std::string device_info(int64_t device);

/// One JSON object about the memory of an accelerator, in bytes: allocated, reserved, peak_allocated and peak_reserved by libtorch's
/// caching allocator (0 before its first use), free and total as the driver says. Unsupported where there is no such device.
std::string device_memory(int64_t device);

/// Starts the peaks of device_memory again from what is in use now.
void reset_peak_memory(int64_t device);

/// Gives memory that libtorch's caching allocator holds but does not use back to the driver.
void empty_device_cache(int64_t device);

/// How busy a CUDA device was lately in percent of the time, by NVML, which is looked for at the first call; -1 if that is not known.
int64_t device_utilization(int64_t device);

/// uint8 [...] on the CPU: the state of libtorch's default generator of a CUDA device, or with -1 of the CPU. Taken between two draws of
/// other threads, not within one.
at::Tensor generator_state(int64_t device);

/// Puts a state of generator_state back, for draws of all threads, and not within one.
void set_generator_state(int64_t device, const at::Tensor& state);

/// Forces the CPU vector level of the process: "baseline", "avx2", "avx512" or "auto". For tests and measurements.
void set_cpu_level(const std::string& level);

/// What computes attention on a GPU in all later calls of the process: "auto", "own" or "cudnn", see molfuse_set_attention_backend.
void set_attention_backend(const std::string& backend);

// ---- attention -------------------------------------------------------------------------------------------------------

/// Scaled dot-product attention; see include/molfuse/attention.h for the formula.
/// query T [B,H,N,D], key and value T [B,H,M,D] (any strides), D a multiple of 8 in 8..256; bias T or S, broadcastable from
/// [B|1,H|1,N|1,M|1] (leading dimensions may be missing), differentiable; relative_bias T or S [H,2R+1], differentiable;
/// key_lengths int32 or int64 [B]; scale absent means 1/sqrt(D); seed absent means drawn from torch's default generator.
/// Returns T [B,H,N,D] in query's memory order.
at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& relative_bias,
                     const std::optional<at::Tensor>& key_lengths, bool causal, std::optional<double> scale,
                     double dropout_p, std::optional<int64_t> seed, int64_t offset);

/// The same over sequences packed one after the other: query T [Tq,H,D], key and value T [Tk,H,D], cu_seqlens int32 [B+1].
at::Tensor attention_varlen(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t max_seqlen_q,
                            int64_t max_seqlen_k, const std::optional<at::Tensor>& relative_bias, bool causal,
                            std::optional<double> scale, double dropout_p, std::optional<int64_t> seed, int64_t offset);

/// One new position against a key/value cache, without gradient: query T [B,H,D], caches T [B,H,capacity,D], lengths int32 or
/// int64 [B]. With key_new and value_new T [B,H,D], first writes them at position lengths[b] of the caches; lengths is not
/// changed. Returns T [B,H,D].
at::Tensor attention_decode(const at::Tensor& query, at::Tensor key_cache, at::Tensor value_cache,
                            const at::Tensor& lengths, const std::optional<at::Tensor>& key_new,
                            const std::optional<at::Tensor>& value_new, const std::optional<at::Tensor>& relative_bias,
                            std::optional<double> scale);

// ---- graph attention -------------------------------------------------------------------------------------------------

/// CSR by target of the directed edges edge_source[e] -> edge_target[e] (int32 or int64 [E], any order), and its transpose.
/// Returns {row_ptr [V+1], source [E], row_ptr_t [V+1], target [E], edge_id [E], permutation [E]} in the edges' type;
/// permutation[p] is the position in the input of by-target edge p.
std::vector<at::Tensor> graph_from_edges(const at::Tensor& edge_source, const at::Tensor& edge_target, int64_t num_nodes);

/// {row_ptr_t [V+1], target [E], edge_id [E]} of the CSR by target row_ptr [V+1], source [E].
std::vector<at::Tensor> graph_transpose(const at::Tensor& row_ptr, const at::Tensor& source);

/// Attention of every node over its in-neighbours (Shi et al. 2020, eq. 3-4): query, key, value T [V,H,C], the graph as from
/// graph_from_edges. Returns T [V,H,C].
at::Tensor graph_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const at::Tensor& row_ptr, const at::Tensor& source, const at::Tensor& row_ptr_t,
                           const at::Tensor& target, const at::Tensor& edge_id, std::optional<double> scale,
                           double dropout_p, std::optional<int64_t> seed, int64_t offset);

// ---- loss ------------------------------------------------------------------------------------------------------------

/// Masked loss of a VAE over token sequences; see include/molfuse/vae_loss.h. logits T [B,T,K], or [B,K,T] with class_second;
/// targets int64 [B,T], each 0..K-1 or pad_index; mean and log_var (both or neither) T or S [B,L].
/// reduction "mean" or "sum": returns {total, recon, kl, perplexity, token_count, correct}, each S [].
/// reduction "none": returns {nll S [B,T], kl_sample S [B], token_count S [], correct S []}.
/// token_count and correct have no gradient. With inplace_backward the gradient of logits is written into the logits' own
/// memory by backward: logits must then not be a leaf, and using its values after backward is an error autograd reports.
std::vector<at::Tensor> vae_loss(const at::Tensor& logits, const at::Tensor& targets,
                                 const std::optional<at::Tensor>& mean, const std::optional<at::Tensor>& log_var,
                                 double beta, int64_t pad_index, const std::string& reduction, bool class_second,
                                 bool inplace_backward);

/// vae_loss of logits = hidden . weight^T + weight_bias without ever storing the logits: hidden T [B,T,C], weight T [K,C],
/// weight_bias T [K]. Returns as vae_loss.
std::vector<at::Tensor> linear_vae_loss(const at::Tensor& hidden, const at::Tensor& weight,
                                        const std::optional<at::Tensor>& weight_bias, const at::Tensor& targets,
                                        const std::optional<at::Tensor>& mean, const std::optional<at::Tensor>& log_var,
                                        double beta, int64_t pad_index, const std::string& reduction);

// ---- latent concatenation --------------------------------------------------------------------------------------------

/// out [B, sum of C_l]: the mean over each graph's nodes of each layer, side by side. layers: T [V,C_l]; graph_ptr int32 or
/// int64 [B+1]. An empty graph gives 0.
at::Tensor latent_concat(const std::vector<at::Tensor>& layers, const at::Tensor& graph_ptr);

/// Writes the mean of nodes T [V,C] over each graph into columns column_offset .. column_offset+C-1 of out T [B,W], in place
/// and visible to autograd, and returns out. Start from a fresh at::empty({B,W}) without requires_grad; fill every slot.
at::Tensor latent_concat_into(at::Tensor out, int64_t column_offset, const at::Tensor& nodes, const at::Tensor& graph_ptr);

/// [B, sum of C_l]: already pooled T [B,C_l] side by side.
at::Tensor latent_concat_pooled(const std::vector<at::Tensor>& pooled);

// ---- the end of an encoder layer ---------------------------------------------------------------------------------------

/// dropout(relu(batch_norm(input + residual))); see include/molfuse/encoder_epilogue.h for the formula. input and residual T [V,C]; weight
/// and bias T or S [C]; running_mean and running_var S [C] (both or neither), updated in place in training and needed otherwise. In
/// training V is at least 2, or 0. Returns T [V,C].
at::Tensor encoder_epilogue(const at::Tensor& input, const std::optional<at::Tensor>& residual, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& running_mean,
                            const std::optional<at::Tensor>& running_var, bool training, double momentum, double eps, double dropout_p,
                            std::optional<int64_t> seed, int64_t offset);

/// The same, and latent_concat_into of the result in the same passes: its mean over each graph goes to columns column_offset up to
/// column_offset+C-1 of pooled T [B,W], which are not rounded in between. Returns {T [V,C], pooled}.
std::vector<at::Tensor> encoder_epilogue_into(at::Tensor pooled, int64_t column_offset, const at::Tensor& graph_ptr, const at::Tensor& input,
                                              const std::optional<at::Tensor>& residual, const std::optional<at::Tensor>& weight,
                                              const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& running_mean,
                                              const std::optional<at::Tensor>& running_var, bool training, double momentum, double eps,
                                              double dropout_p, std::optional<int64_t> seed, int64_t offset);

// ---- sampling --------------------------------------------------------------------------------------------------------

/// z = mean + exp(clamp(log_var,-20,10)/2) * eps; mean, log_var T [B,L]; eps from (seed, offset), never stored.
at::Tensor reparameterize(const at::Tensor& mean, const at::Tensor& log_var, std::optional<int64_t> seed, int64_t offset);

// ---- optimiser step: nothing here waits for a device --------------------------------------------------------------------

/// Multiplies every gradient by inv_scale (f32 [1] or []) in place and sets found_inf (f32 [1] or []) to 1 if any is not finite; found_inf
/// is never set back to 0. Undefined gradients are skipped; element types and devices may differ.
void amp_unscale_(const std::vector<at::Tensor>& grads, at::Tensor found_inf, const at::Tensor& inv_scale);

/// The dynamic loss scale after a step: scale *= backoff_factor if found_inf, else growth_tracker + 1 and, every
/// growth_interval steps in a row, scale *= growth_factor. scale f32 [1] or [], growth_tracker int32 of the same shape.
void amp_update_scale_(at::Tensor scale, at::Tensor growth_tracker, const at::Tensor& found_inf, double growth_factor,
                       double backoff_factor, int64_t growth_interval);

/// One AdamW step (decoupled weight decay) over a parameter group. Parameters whose gradient is undefined are skipped.
/// state_steps: f32 [] each, counting the steps taken so far; incremented here, but not if found_inf is set, and then
/// parameters and moments stay as they were. grad_scale: the gradients are divided by it. max_exp_avg_sqs is empty without amsgrad.
void fused_adamw_(const std::vector<at::Tensor>& params, const std::vector<at::Tensor>& grads,
                  const std::vector<at::Tensor>& exp_avgs, const std::vector<at::Tensor>& exp_avg_sqs,
                  const std::vector<at::Tensor>& max_exp_avg_sqs, const std::vector<at::Tensor>& state_steps, double lr,
                  double beta1, double beta2, double weight_decay, double eps, bool amsgrad, bool maximize,
                  const std::optional<at::Tensor>& grad_scale, const std::optional<at::Tensor>& found_inf);

/// Scales all gradients in place so that their joint norm is at most max_norm, and returns the norm before that (f32 [], or
/// f64 [] if any gradient is f64) on the first gradient's device. norm_type 1, 2, any other positive number, or infinity.
at::Tensor clip_grad_norm_(const std::vector<at::Tensor>& grads, double max_norm, double norm_type);

// ---- gradient checkpointing ------------------------------------------------------------------------------------------------

/// Computes the gradients of a checkpointed segment in backward, by running the segment again: inputs are its inputs without history
/// (those that required gradients do so again), grad_outputs has one gradient for each output, or an undefined tensor; grad_inputs gets
/// one gradient for each input, or stays undefined. Called with gradients enabled, in the thread and on the stream that libtorch runs
/// this node's backward on; what it throws, backward throws.
typedef void (*recompute_callback)(int64_t segment, const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& grad_outputs,
                                   std::vector<at::Tensor>& grad_inputs);

/// outputs, computed from inputs without gradients, as results of a node of the graph whose backward calls recompute with the caller's
/// number of the segment. Integer outputs have no history. The node saves the inputs, and nothing else.
std::vector<at::Tensor> checkpoint_outputs(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& outputs, int64_t segment,
                                           recompute_callback recompute);

/// Numbers of the segments that will not be called back any more, each once.
std::vector<int64_t> released_segments();

// ---- waiting for a device ----------------------------------------------------------------------------------------------------

/// Begins or ends counting the operators called by this thread that take values of tensors to the host. Calls nest.
void count_host_reads(bool on);

/// Such operators so far in this thread while counting was on: each reading of a number (item), copy from a device to the CPU, equal and
/// nonzero. Tensors on the CPU count, too, but for copies and for what operators' own CPU code reads: so a test without a device sees what
/// would wait for one.
int64_t host_reads();

}  // namespace molfuse::torch_api

#pragma GCC visibility pop
