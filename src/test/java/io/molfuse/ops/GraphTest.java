// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.AttentionArgumentsTest.refused;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.Random;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;

/** OPERATORS.md 2: the graph as compressed sparse rows by target and its transpose. */
class GraphTest extends InScope {
  @Property(tries = 60)
  void anyEdgeListIsSortedByTargetKeepingOrder(
      @ForAll @IntRange(min = 1, max = 40) int nodes, @ForAll @IntRange(min = 0, max = 120) int edges, @ForAll long seed) {
    Random random = new Random(seed);
    long[] source = random.longs(edges, 0, nodes).toArray();
    long[] target = random.longs(edges, 0, nodes).toArray();
    try (PointerScope scope = new PointerScope();
        Graph graph = Graph.fromEdges(Tensors.longs(source), Tensors.longs(target), nodes)) {
      Graphs expected = Graphs.of(nodes, source, target);
      double[] rowPtr = Tensors.values(graph.rowPtr());
      int[] expectedRows = expected.rowPtr();
      assertThat(rowPtr).hasSize(nodes + 1);
      for (int t = 0; t <= nodes; t++) {
        assertThat(rowPtr[t]).isEqualTo(expectedRows[t]);
      }
      double[] sources = Tensors.values(graph.source());
      double[] permutation = Tensors.values(graph.permutation());
      for (int e = 0; e < edges; e++) {
        assertThat(sources[e]).isEqualTo(expected.source()[e]);
        assertThat(source[(int) permutation[e]]).isEqualTo(expected.source()[e]);
        assertThat(target[(int) permutation[e]]).isEqualTo(expected.target()[e]);
      }
      checkTranspose(graph, expected);
      assertThat(graph.numNodes()).isEqualTo(nodes);
      assertThat(graph.numEdges()).isEqualTo(edges);
    }
  }

  @Test
  void sortedEdgesGetTheirTranspose() {
    Graphs edges = Graphs.random(new Random(1), 17, 40);
    checkTranspose(edges.build(), edges);
    checkTranspose(edges.buildLong(), edges);
  }

  @Test
  void aMovedGraphIsTheSameAndItsOwn() {
    Graphs edges = Graphs.random(new Random(2), 17, 40);
    Graph moved;
    try (Graph graph = edges.buildLong()) {
      moved = graph.to(new Device("cpu"));
    }
    checkTranspose(moved, edges);
    assertThat(moved.permutation().numel()).isEqualTo(40);
    try (Graph graph = edges.build(); Graph elsewhere = graph.to(new Device("meta"))) {
      assertThat(elsewhere.edgeId().is_meta()).isTrue();
      assertThat(elsewhere.numEdges()).isEqualTo(40);
      assertThat(elsewhere.permutation()).isNull();
    }
    refused("device", "null", () -> moved.to(null));
  }

  @Test
  void theGraphOutlivesTheTensorsItWasMadeFrom() {
    Tensor rowPtr = Tensors.ints(0, 1, 2);
    Tensor source = Tensors.ints(1, 0);
    Graph graph = Graph.of(rowPtr, source);
    rowPtr.close();
    source.close();
    assertThat(Tensors.values(graph.source())).containsExactly(1, 0);
    assertThat(graph.permutation()).isNull();
  }

  @Test
  void aGraphWithoutEdgesOrWithoutNodesExists() {
    assertThat(Graph.of(new int[] {0, 0, 0}, new int[0]).numNodes()).isEqualTo(2);
    Graph none = Graph.fromEdges(Tensors.longs(), Tensors.longs(), 0);
    assertThat(none.numNodes()).isZero();
    assertThat(none.numEdges()).isZero();
  }

  @Test
  void wrongEdgesAreRefused() {
    refused("edge_source", "3", () -> Graph.fromEdges(Tensors.longs(0, 3), Tensors.longs(0, 1), 3));
    refused("edge_target", "-1", () -> Graph.fromEdges(Tensors.longs(0, 1), Tensors.longs(-1, 1), 3));
    refused("edge_target", "[1]", () -> Graph.fromEdges(Tensors.longs(0, 1), Tensors.longs(1), 3));
    refused("edge_target", "int32", () -> Graph.fromEdges(Tensors.longs(0, 1), Tensors.ints(1, 1), 3));
    refused("edge_source", "float32", () -> Graph.fromEdges(Tensors.zeros(ScalarType.Float, 2), Tensors.longs(0, 1), 3));
    refused("num_nodes", "-1", () -> Graph.fromEdges(Tensors.longs(), Tensors.longs(), -1));
    refused("row_ptr", "5", () -> Graph.of(new int[] {0, 1, 5}, new int[] {0, 1}));
    refused("row_ptr", "1", () -> Graph.of(new int[] {1, 1, 2}, new int[] {0, 1}));
    refused("source", "2", () -> Graph.of(new int[] {0, 1, 2}, new int[] {0, 2}));
    refused("source", "int64", () -> Graph.of(Tensors.ints(0, 1), Tensors.longs(0)));
    refused("row_ptr", "null", () -> Graph.of((int[]) null, new int[0]));
  }

  private static void checkTranspose(Graph graph, Graphs edges) {
    double[] rows = Tensors.values(graph.rowPtrT());
    double[] target = Tensors.values(graph.target());
    double[] edgeId = Tensors.values(graph.edgeId());
    for (int s = 0; s < edges.nodes(); s++) {
      for (int p = (int) rows[s]; p < rows[s + 1]; p++) {
        int e = (int) edgeId[p];
        assertThat(edges.source()[e]).isEqualTo(s);
        assertThat(edges.target()[e]).isEqualTo((long) target[p]);
      }
    }
    assertThat(rows[0]).isZero();
    assertThat(rows[edges.nodes()]).isEqualTo(edges.edges());
    assertThat(edgeId).doesNotHaveDuplicates();
  }
}
