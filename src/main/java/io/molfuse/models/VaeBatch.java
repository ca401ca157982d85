// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.GraphBatch;
import io.molfuse.ops.Graph;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;

/**
 * A batch of molecules as tensors. Belongs to the scope it was made in.
 *
 * @param nodes f32 [V,6]
 * @param graph edges over the V nodes
 * @param graphPtr int32 [B+1]: the first node of each molecule
 * @param inputs int64 [B,T-1]: each sequence without its last position
 * @param targets int64 [B,T-1]: each sequence without its first position, so that targets[b,t] follows inputs[b,t]
 */
public record VaeBatch(Tensor nodes, Graph graph, Tensor graphPtr, Tensor inputs, Tensor targets) {
  /**
   * Copies a batch to the CPU's tensors.
   *
   * @param batch arrays
   * @return tensors
   */
  public static VaeBatch of(GraphBatch batch) {
    return of(batch, new Device(DeviceType.CPU));
  }

  /**
   * Copies a batch to a device.
   *
   * @param batch arrays
   * @param device where to
   * @return tensors
   */
  public static VaeBatch of(GraphBatch batch, Device device) {
    Tensor tokens = Tensors.longs(device, batch.tokens(), batch.size(), batch.maxTokens());
    long steps = batch.maxTokens() - 1L;
    return new VaeBatch(
        Tensors.floats(device, batch.features(), batch.nodeCount(), ModelConfig.NODE_FEATURES),
        Graph.of(Tensors.ints(device, batch.rowPtr()), Tensors.ints(device, batch.source())),
        Tensors.ints(device, batch.graphPtr()),
        tokens.narrow(1, 0L, steps).contiguous(),
        tokens.narrow(1, 1L, steps).contiguous());
  }
}
