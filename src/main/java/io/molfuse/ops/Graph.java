// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.Checks.index;
import static io.molfuse.ops.Checks.sameType;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;

/**
 * The directed edges of a batch of graphs over V nodes as compressed sparse rows by target, and the transpose that backward
 * needs. Built once per batch, shared by all layers. All tensors are int32 or int64, one type for all.
 *
 * <p>In by-target order edge e runs from source[e] to the row holding e, that is the t with row_ptr[t] &lt;= e &lt; row_ptr[t+1]. In
 * by-source order position p runs to target[p] and is edge edge_id[p] of the by-target order.
 *
 * <p>The tensors belong to the {@link PointerScope} that was innermost when the graph was made; {@link #close()} releases
 * them earlier, or at all if there was no scope.
 */
public final class Graph implements AutoCloseable {
  private final Tensor rowPtr;
  private final Tensor source;
  private final Tensor rowPtrT;
  private final Tensor target;
  private final Tensor edgeId;
  private final Tensor permutation;

  private Graph(Tensor rowPtr, Tensor source, Tensor rowPtrT, Tensor target, Tensor edgeId, Tensor permutation) {
    this.rowPtr = rowPtr;
    this.source = source;
    this.rowPtrT = rowPtrT;
    this.target = target;
    this.edgeId = edgeId;
    this.permutation = permutation;
  }

  /**
   * Sorts an edge list by target, keeping the order of edges with one target.
   *
   * @param edgeSource int32 or int64 [E], each 0..numNodes-1
   * @param edgeTarget [E] of the same type, each 0..numNodes-1
   * @param numNodes V
   * @return a graph with a {@link #permutation()}
   */
  public static Graph fromEdges(Tensor edgeSource, Tensor edgeTarget, long numNodes) {
    index("edge_source", edgeSource, "[E]", 1);
    index("edge_target", edgeTarget, "[E]", 1);
    sameType("edge_target", edgeTarget, "edge_source", edgeSource);
    if (numNodes < 0) {
      throw new IllegalArgumentException("num_nodes: expected at least 0, got " + numNodes);
    }
    Tensor[] parts = Native.graphFromEdges(edgeSource, edgeTarget, numNodes);
    return new Graph(parts[0], parts[1], parts[2], parts[3], parts[4], parts[5]);
  }

  /**
   * Takes sorted edges and builds the transpose. The graph shares the storage of the tensors given but owns its own
   * references, so that the caller may close his.
   *
   * @param rowPtr int32 or int64 [V+1], ascending from 0 to E
   * @param source [E] of the same type, each 0..V-1
   * @return a graph without a {@link #permutation()}
   */
  public static Graph of(Tensor rowPtr, Tensor source) {
    index("row_ptr", rowPtr, "[V+1]", 1);
    index("source", source, "[E]", 1);
    sameType("source", source, "row_ptr", rowPtr);
    Tensor[] transpose = Native.graphTranspose(rowPtr, source);
    return new Graph(new Tensor(rowPtr), new Tensor(source), transpose[0], transpose[1], transpose[2], null);
  }

  /**
   * As {@link #of(Tensor, Tensor)} from Java arrays, which are copied.
   *
   * @param rowPtr [V+1], ascending from 0 to E
   * @param source [E], each 0..V-1
   * @return a graph of int32 tensors on the CPU, without a {@link #permutation()}
   */
  public static Graph of(int[] rowPtr, int[] source) {
    Checks.notNull("row_ptr", rowPtr);
    Checks.notNull("source", source);
    try (Tensor rows = Native.intTensor(rowPtr);
        Tensor sources = Native.intTensor(source)) {
      return of(rows, sources);
    }
  }

  /**
   * The graph on a device. Graphs are built on the CPU: one that operators on a GPU shall use is moved there once.
   *
   * @param device where to
   * @return a graph of its own references, to be closed apart from this one; where the tensors are there already, it shares their storage
   */
  public Graph to(Device device) {
    Checks.notNull("device", device);
    return new Graph(
        Native.to(rowPtr, device),
        Native.to(source, device),
        Native.to(rowPtrT, device),
        Native.to(target, device),
        Native.to(edgeId, device),
        permutation == null ? null : Native.to(permutation, device));
  }

  /** @return V */
  public long numNodes() {
    return rowPtr.numel() - 1;
  }

  /** @return E */
  public long numEdges() {
    return source.numel();
  }

  /** @return [V+1]: the first by-target edge of each node, and E */
  public Tensor rowPtr() {
    return rowPtr;
  }

  /** @return [E]: the source of each edge in by-target order */
  public Tensor source() {
    return source;
  }

  /** @return [V+1]: the first by-source position of each node, and E */
  public Tensor rowPtrT() {
    return rowPtrT;
  }

  /** @return [E]: the target of each edge in by-source order */
  public Tensor target() {
    return target;
  }

  /** @return [E]: the by-target position of each edge in by-source order */
  public Tensor edgeId() {
    return edgeId;
  }

  /** @return [E]: the position in the edge list of each by-target edge, or null if the graph was not made from an edge list */
  public Tensor permutation() {
    return permutation;
  }

  /** Releases the tensors. */
  @Override
  public void close() {
    Native.close(rowPtr, source, rowPtrT, target, edgeId, permutation);
  }
}
