// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

/**
 * What the loaded native libraries can do on this machine.
 *
 * @param version version of libmolfuse
 * @param libtorch version of the libtorch in use
 * @param cpuVectorLevel CPU vector level in use: "baseline", "avx2" or "avx512"
 * @param cpuVectorBest best level the machine has
 * @param cpuThreads threads a parallel operator uses
 * @param cudaCompiled whether the build holds CUDA kernels
 * @param cudaUsable whether a CUDA device can be used now
 * @param cudaReason why {@code cudaUsable} is false; else empty
 * @param cudnnUsable whether attention on a GPU can use cuDNN now
 * @param cudnnReason why {@code cudnnUsable} is false; else empty
 * @param cudnnVersion of the cuDNN that was found, 91900 for 9.19.0; 0: none
 * @param attentionBackend what {@link Molfuse#setAttentionBackend} chose: "auto", "own" or "cudnn"
 */
public record Capabilities(
    String version,
    String libtorch,
    String cpuVectorLevel,
    String cpuVectorBest,
    int cpuThreads,
    boolean cudaCompiled,
    boolean cudaUsable,
    String cudaReason,
    boolean cudnnUsable,
    String cudnnReason,
    int cudnnVersion,
    String attentionBackend) {}
