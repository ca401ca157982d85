// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import io.molfuse.chem.GraphBatch;
import io.molfuse.ops.Graph;
import io.molfuse.train.StagingRing;
import java.util.List;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.DeviceType;
import org.bytedeco.pytorch.global.torch.ScalarType;

/**
 * A batch of molecules as tensors. Belongs to the scope it was made in.
 *
 * @param nodes f32 [V,6]
 * @param graph edges over the V nodes
 * @param graphPtr int32 [B+1]: the first node of each molecule
 * @param inputs int64 [B,T-1]: each sequence without its last position
 * @param targets int64 [B,T-1]: each sequence without its first position, so that targets[b,t] follows inputs[b,t]
 * @param properties f32 [B,P]: what the model is conditioned on, NaN where it is not known; null if nothing is
 */
public record VaeBatch(Tensor nodes, Graph graph, Tensor graphPtr, Tensor inputs, Tensor targets, Tensor properties) {
  /**
   * A batch without properties.
   *
   * @param nodes f32 [V,6]
   * @param graph edges over the V nodes
   * @param graphPtr int32 [B+1]
   * @param inputs int64 [B,T-1]
   * @param targets int64 [B,T-1]
   */
  public VaeBatch(Tensor nodes, Graph graph, Tensor graphPtr, Tensor inputs, Tensor targets) {
    this(nodes, graph, graphPtr, inputs, targets, null);
  }

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
        tokens.narrow(1, 1L, steps).contiguous(),
        batch.properties().length == 0 ? null : Tensors.floats(device, batch.properties(), batch.size(), width(batch)));
  }

  private static long width(GraphBatch batch) {
    return batch.properties().length / batch.size();
  }

  /**
   * Writes a batch into the memory that a device copies from; {@link #of(List)} makes a batch of what arrives there.
   *
   * @param batch arrays
   * @param slot takes the tensors
   */
  public static void stage(GraphBatch batch, StagingRing.Slot slot) {
    Tensors.put(slot.tensor(ScalarType.Float, batch.nodeCount(), ModelConfig.NODE_FEATURES), batch.features());
    Tensors.put(slot.tensor(ScalarType.Int, batch.rowPtr().length), batch.rowPtr());
    Tensors.put(slot.tensor(ScalarType.Int, batch.source().length), batch.source());
    Tensors.put(slot.tensor(ScalarType.Int, batch.graphPtr().length), batch.graphPtr());
    Tensors.put(slot.tensor(ScalarType.Long, batch.size(), batch.maxTokens()), batch.tokens());
    if (batch.properties().length > 0) {
      Tensors.put(slot.tensor(ScalarType.Float, batch.size(), width(batch)), batch.properties());
    }
  }

  /**
   * A batch of staged tensors.
   *
   * @param tensors what {@link #stage} wrote, on any device
   * @return the batch, of these tensors without a copy where that is possible
   */
  public static VaeBatch of(List<Tensor> tensors) {
    Tensor tokens = tensors.get(4);
    long steps = tokens.size(1) - 1;
    return new VaeBatch(
        tensors.get(0),
        Graph.of(tensors.get(1), tensors.get(2)),
        tensors.get(3),
        tokens.narrow(1, 0L, steps).contiguous(),
        tokens.narrow(1, 1L, steps).contiguous(),
        tensors.size() > 5 ? tensors.get(5) : null);
  }
}
