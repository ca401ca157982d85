// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.Checks.floating;
import static io.molfuse.ops.Checks.index;

import java.util.List;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;

/**
 * Mean-pools the node features of several layers over each graph of a batch, straight into one concatenated row per graph.
 *
 * <pre>
 *   out[b, l*C + c] = mean over nodes v in graph_ptr[b] .. graph_ptr[b+1]-1 of layers[l][v, c];  an empty graph gives 0
 * </pre>
 *
 * Nothing is stacked and no pooled tensor per layer is stored. T is float16, bfloat16, float32 or float64, one for all
 * layers. The layers are differentiable, once.
 *
 * <p>Every result belongs to the caller's innermost {@link PointerScope}. Wrong arguments are
 * {@link IllegalArgumentException}s; other failures are {@link MolfuseException}s.
 */
public final class LatentConcat {
  private LatentConcat() {}

  /**
   * Pools all layers at once.
   *
   * @param layers T [V,C_l] each; the widths may differ
   * @param graphPtr int32 or int64 [B+1], ascending from 0 to V: the first node of each graph
   * @return T [B, sum of C_l]
   */
  public static Tensor apply(List<Tensor> layers, Tensor graphPtr) {
    checkAll("layers", layers, "[V,C]");
    try (TensorVector vector = Native.vector(layers)) {
      return apply(vector, graphPtr);
    }
  }

  /**
   * As {@link #apply(List, Tensor)}.
   *
   * @param layers T [V,C_l] each
   * @param graphPtr int32 or int64 [B+1]
   * @return T [B, sum of C_l]
   */
  public static Tensor apply(TensorVector layers, Tensor graphPtr) {
    checkNotEmpty("layers", layers);
    index("graph_ptr", graphPtr, "[B+1]", 1);
    return Unfused.on() ? Unfused.latentConcat(layers, graphPtr) : Native.latentConcat(layers, graphPtr);
  }

  /**
   * Pools one layer into its columns as soon as the layer is computed, so that its features need not be kept for the pooling.
   * Start from a fresh {@code torch.empty(B, W)} without gradient and fill every column; use the returned tensor from then on.
   *
   * @param out T [B,W], written in place in columns columnOffset .. columnOffset+C-1
   * @param columnOffset first column
   * @param nodes T [V,C]
   * @param graphPtr int32 or int64 [B+1]
   * @return out, knowing its gradient
   */
  public static Tensor into(Tensor out, long columnOffset, Tensor nodes, Tensor graphPtr) {
    floating("out", out, "[B,W]", 2);
    floating("nodes", nodes, "[V,C]", 2);
    index("graph_ptr", graphPtr, "[B+1]", 1);
    if (columnOffset < 0) {
      throw new IllegalArgumentException("column_offset: expected at least 0, got " + columnOffset);
    }
    return Unfused.on()
        ? Unfused.latentConcatInto(out, columnOffset, nodes, graphPtr)
        : Native.latentConcatInto(out, columnOffset, nodes, graphPtr);
  }

  /**
   * Puts already pooled tensors side by side.
   *
   * @param pooled T [B,C_l] each; the widths may differ
   * @return T [B, sum of C_l]
   */
  public static Tensor pooled(List<Tensor> pooled) {
    checkAll("pooled", pooled, "[B,C]");
    try (TensorVector vector = Native.vector(pooled)) {
      return pooled(vector);
    }
  }

  /**
   * As {@link #pooled(List)}.
   *
   * @param pooled T [B,C_l] each
   * @return T [B, sum of C_l]
   */
  public static Tensor pooled(TensorVector pooled) {
    checkNotEmpty("pooled", pooled);
    return Unfused.on() ? Unfused.latentConcatPooled(pooled) : Native.latentConcatPooled(pooled);
  }

  private static void checkAll(String name, List<Tensor> tensors, String shape) {
    Checks.notNull(name, tensors);
    for (int i = 0; i < tensors.size(); i++) {
      floating(name + "[" + i + "]", tensors.get(i), shape, 2);
    }
  }

  private static void checkNotEmpty(String name, TensorVector tensors) {
    Checks.open(name, tensors);
    if (tensors.size() == 0) {
      throw new IllegalArgumentException(name + ": expected at least one tensor, got none");
    }
  }
}
