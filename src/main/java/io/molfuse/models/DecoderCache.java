// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import java.util.List;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;

/**
 * The keys and values of the positions decoded so far. Belongs to the scope it was made in.
 *
 * @param layers one entry a decoder layer
 * @param filled int32 [B]: positions in the caches
 * @param memory int32 [B]: positions of the memory
 */
record DecoderCache(List<Layer> layers, Tensor filled, Tensor memory) {
  /**
   * One layer's tensors.
   *
   * @param keys [B,heads,capacity,D]
   * @param values [B,heads,capacity,D]
   * @param memoryKeys [B,heads,S,D]
   * @param memoryValues [B,heads,S,D]
   */
  record Layer(Tensor keys, Tensor values, Tensor memoryKeys, Tensor memoryValues) {}

  void grow() {
    filled.add_(new Scalar(1));
  }
}
