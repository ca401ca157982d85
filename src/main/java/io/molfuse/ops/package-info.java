// SPDX-License-Identifier: Apache-2.0
/**
 * The fused operators on {@link org.bytedeco.pytorch.Tensor}: one class for each family.
 *
 * <ul>
 *   <li>{@link io.molfuse.ops.Attention} over sequences: padded, packed, and one position at a time for generation
 *   <li>{@link io.molfuse.ops.GraphAttention} over the edges of a {@link io.molfuse.ops.Graph}
 *   <li>{@link io.molfuse.ops.VaeLoss} from logits or, with the vocabulary projection fused in, from hidden states
 *   <li>{@link io.molfuse.ops.LatentConcat} pools the layers of a graph encoder into one row per graph
 *   <li>{@link io.molfuse.ops.Reparameterize} samples the latent
 *   <li>{@link io.molfuse.ops.StepOps} for mixed precision and the optimiser
 *   <li>{@link io.molfuse.ops.Recomputation} lets Java compute gradients, for checkpointing
 *   <li>{@link io.molfuse.ops.DefaultGenerator} has the states of what is drawn without a seed
 *   <li>{@link io.molfuse.ops.HostReads} counts what makes the host wait for a device
 * </ul>
 *
 * <p>Memory: an operator returns new tensors, which the innermost {@link org.bytedeco.javacpp.PointerScope} of the calling
 * thread owns; whatever else a call needs is released before it returns, and tensors passed in are never closed. Without a
 * scope the caller closes the results.
 *
 * <p>Threads: all functions may be called from several threads at once, and none starts one of its own beyond libtorch's and
 * OpenMP's pools.
 *
 * <p>Errors: a wrong argument is an {@link java.lang.IllegalArgumentException} that names the argument, what was expected and
 * what came, raised before anything was written; every other failure is a {@link io.molfuse.ops.MolfuseException}.
 */
package io.molfuse.ops;
