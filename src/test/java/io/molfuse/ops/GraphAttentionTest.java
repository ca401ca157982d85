// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.AttentionArgumentsTest.refused;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.Random;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.LongRange;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** OPERATORS.md 2: outputs and gradients against gather and scatter. */
class GraphAttentionTest extends InScope {
  private static final ScalarType[] TYPES = {ScalarType.Float, ScalarType.Double, ScalarType.BFloat16, ScalarType.Half};

  @ParameterizedTest
  @EnumSource(names = {"Float", "Double", "BFloat16", "Half"})
  void everyTypeMatchesTheFormula(ScalarType type) {
    check(type, Graphs.random(new Random(1), 30, 90), 4, 32, 0, 0, 1);
    check(type, Graphs.random(new Random(2), 25, 60), 8, 256, 0, 0, 1);
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3, 6, 8, 17, 40, 100, 128})
  void anyChannelCountMatchesTheFormula(int channels) {
    check(ScalarType.Float, Graphs.random(new Random(3), 20, 50), 3, channels, 0, 0, 1);
    check(ScalarType.BFloat16, Graphs.random(new Random(3), 20, 50), 3, channels, 0, 0, 1);
  }

  @Property(tries = 50)
  void anyGraphMatchesTheFormula(
      @ForAll @IntRange(min = 1, max = 60) int nodes,
      @ForAll @IntRange(min = 0, max = 200) int edges,
      @ForAll @IntRange(min = 1, max = 9) int heads,
      @ForAll @IntRange(min = 1, max = 70) int channels,
      @ForAll @IntRange(min = 0, max = 3) int type,
      @ForAll @LongRange(min = 0, max = Long.MAX_VALUE) long seed) {
    try (PointerScope scope = new PointerScope()) {
      Random random = new Random(seed);
      double p = random.nextInt(3) == 0 ? 0.7 * random.nextDouble() : 0;
      check(TYPES[type], Graphs.random(random, nodes, edges), heads, channels, p, random.nextLong(), seed);
    }
  }

  @Test
  void int64IndicesGiveTheSame() {
    Graphs edges = Graphs.random(new Random(4), 20, 50);
    Tensor[] in = inputs(ScalarType.Float, 20, 2, 16, 1);
    Tensor withInts = GraphAttention.apply(in[0], in[1], in[2], edges.build());
    assertThat(GraphAttention.apply(in[0], in[1], in[2], edges.buildLong()).equal(withInts)).isTrue();
  }

  @Test
  void aNodeWithoutNeighboursGivesZeroAndNoGradient() {
    // Node 1 has an in-edge only, node 2 an out-edge only, node 0 none.
    Graph graph = Graph.of(new int[] {0, 0, 1, 1}, new int[] {2});
    Tensor[] leaves = Acceptance.leaves(inputs(ScalarType.Float, 3, 2, 8, 1), ScalarType.Float);
    Tensor out = GraphAttention.apply(leaves[0], leaves[1], leaves[2], graph);
    assertThat(Tensors.values(out.select(0, 0))).containsOnly(0);
    assertThat(Tensors.values(out.select(0, 2))).containsOnly(0);
    assertThat(Tensors.maxDifference(Tensors.values(out.select(0, 1)), Tensors.values(leaves[2].select(0, 2)))).isLessThan(1e-6);
    for (Tensor grad : Acceptance.gradients(new Tensor[] {out}, leaves, new Tensor[] {Tensors.full(1, ScalarType.Float, 3, 2, 8)})) {
      assertThat(Tensors.allFinite(grad)).isTrue();
      assertThat(Tensors.values(grad.select(0, 0))).containsOnly(0);
    }
  }

  @Test
  void anEmptyGraphGivesZeros() {
    Tensor[] in = inputs(ScalarType.Float, 4, 2, 8, 1);
    Tensor out = GraphAttention.apply(in[0], in[1], in[2], Graph.of(new int[] {0, 0, 0, 0, 0}, new int[0]));
    assertThat(Tensors.values(out)).containsOnly(0);
    Tensor[] none = inputs(ScalarType.Float, 0, 2, 8, 1);
    Tensor empty = GraphAttention.apply(none[0], none[1], none[2], Graph.of(new int[] {0}, new int[0]));
    assertThat(empty.shape()).containsExactly(0, 2, 8);
  }

  @Test
  void stridedProjectionsAreReadCorrectly() {
    Graphs edges = Graphs.random(new Random(5), 20, 50);
    Graph graph = edges.build();
    double scale = 1 / Math.sqrt(8);
    // Query, key and value as slices of one matrix product, as a layer that fuses its projections has them.
    Tensor joined = Tensors.normal(new Random(6), ScalarType.Float, 20, 4 * 2 * 8);
    Acceptance.check(
        in -> new Tensor[] {GraphAttention.apply(part(in[0], 0), part(in[0], 1), part(in[0], 2), graph)},
        in -> new Tensor[] {
          Formulas.graphAttention(part(in[0], 0), part(in[0], 1), part(in[0], 2), edges.source(), edges.target(), scale, Formulas.Keep.ALL)
        },
        ScalarType.Float,
        joined);
    Tensor wide = Tensors.normal(new Random(7), ScalarType.Float, 20, 8, 2);
    Acceptance.check(
        in -> new Tensor[] {GraphAttention.apply(in[0].transpose(1, 2), in[0].transpose(1, 2), in[0].transpose(1, 2), graph)},
        in -> new Tensor[] {
          Formulas.graphAttention(
              in[0].transpose(1, 2), in[0].transpose(1, 2), in[0].transpose(1, 2), edges.source(), edges.target(), scale, Formulas.Keep.ALL)
        },
        ScalarType.Float,
        wide);
  }

  @Test
  void gradientsPassFiniteDifferences() {
    Graph graph = Graphs.random(new Random(8), 5, 9).build();
    Tensor[] in = inputs(ScalarType.Double, 5, 2, 3, 1);
    Acceptance.checkFiniteDifferences(x -> new Tensor[] {GraphAttention.apply(x[0], x[1], x[2], graph)}, in);
    Acceptance.checkFiniteDifferences(
        x -> new Tensor[] {GraphAttention.apply(x[0], x[1], x[2], graph, 0.4, 3)}, in);
    Acceptance.checkFiniteDifferences(
        x -> new Tensor[] {GraphAttention.apply(x[0], x[1], x[2], graph, GraphAttention.options().scale(0.9))}, in);
  }

  @Test
  void theDocumentedPhiloxWordsDecideDropout() {
    Graphs edges = Graphs.random(new Random(9), 40, 150);
    check(ScalarType.Float, edges, 3, 16, 0.5, -7, 1);
    check(ScalarType.Double, edges, 8, 16, 0.1, 1L << 50, 1);
    check(ScalarType.BFloat16, edges, 5, 24, 0.9, 3, 1);
  }

  @Test
  void dropoutRepeatsBySeedAndByLibtorchsGenerator() {
    Graph graph = Graphs.random(new Random(10), 20, 80).build();
    Tensor[] in = inputs(ScalarType.Float, 20, 2, 8, 1);
    Tensor first = GraphAttention.apply(in[0], in[1], in[2], graph, 0.5, 4);
    assertThat(GraphAttention.apply(in[0], in[1], in[2], graph, 0.5, 4).equal(first)).isTrue();
    assertThat(GraphAttention.apply(in[0], in[1], in[2], graph, 0.5, 5).equal(first)).isFalse();
    torch.manual_seed(3);
    Tensor drawn = GraphAttention.apply(in[0], in[1], in[2], graph, 0.5);
    Tensor other = GraphAttention.apply(in[0], in[1], in[2], graph, 0.5);
    torch.manual_seed(3);
    assertThat(GraphAttention.apply(in[0], in[1], in[2], graph, 0.5).equal(drawn)).isTrue();
    assertThat(drawn.equal(other)).isFalse();
  }

  @Test
  void keptFractionIsWhatDropoutSays() {
    int nodes = 400;
    int degree = 50;
    double p = 0.3;
    int[] rowPtr = new int[nodes + 1];
    int[] source = new int[nodes * degree];
    for (int t = 0; t <= nodes; t++) {
      rowPtr[t] = t * degree;
    }
    for (int e = 0; e < source.length; e++) {
      source[e] = e % nodes;
    }
    Tensor zero = Tensors.zeros(ScalarType.Float, nodes, 4, 8);
    Tensor one = Tensors.full(1, ScalarType.Float, nodes, 4, 8);
    Tensor out = GraphAttention.apply(zero, zero, one, Graph.of(rowPtr, source), p, 12);
    double[] kept = Arrays.stream(Tensors.values(out.select(2, 0))).map(x -> x * (1 - p) * degree).toArray();
    double mean = Arrays.stream(kept).average().orElseThrow();
    double variance = Arrays.stream(kept).map(x -> (x - mean) * (x - mean)).sum() / (kept.length - 1);
    double expected = degree * p * (1 - p);
    assertThat(mean).isCloseTo(degree * (1 - p), within(5 * Math.sqrt(expected / kept.length)));
    assertThat(variance).isCloseTo(expected, within(5 * expected * Math.sqrt(2.0 / kept.length)));
  }

  @Test
  void noTensorOfEdgesTimesChannelsIsStored() {
    // 40000 edges x 8 x 64 channels of f32 would take 78 MiB; all tensors of 500 nodes together take 7 MiB.
    Graph graph = Graphs.random(new Random(11), 500, 40000).build();
    Tensor[] leaves = Acceptance.leaves(inputs(ScalarType.Float, 500, 8, 64, 1), ScalarType.Float);
    GraphAttention.apply(leaves[0], leaves[1], leaves[2], graph).sum().backward();
    ResidentMemory.resetPeak();
    long before = ResidentMemory.peakKiB();
    GraphAttention.apply(leaves[0], leaves[1], leaves[2], graph).sum().backward();
    assertThat(ResidentMemory.peakKiB() - before).as("growth of peak memory in KiB").isLessThan(24 * 1024);
  }

  @Test
  void wrongArgumentsAreRefused() {
    Graph graph = Graph.of(new int[] {0, 1, 2, 2}, new int[] {1, 0});
    Tensor x = Tensors.full(1, ScalarType.Float, 3, 2, 8);
    refused("query", "null", () -> GraphAttention.apply(null, x, x, graph));
    refused("graph", "null", () -> GraphAttention.apply(x, x, x, null));
    refused("query", "int64", () -> GraphAttention.apply(x.to(ScalarType.Long), x, x, graph));
    refused("value", "[3, 16]", () -> GraphAttention.apply(x, x, x.view(3, 16), graph));
    refused("key", "[2, 2, 8]", () -> GraphAttention.apply(x, x.narrow(0, 0, 2), x, graph));
    refused("key", "Double", () -> GraphAttention.apply(x, x.to(ScalarType.Double), x, graph));
    refused("dropout_p", "1.5", () -> GraphAttention.apply(x, x, x, graph, 1.5));
    Tensor four = Tensors.full(1, ScalarType.Float, 4, 2, 8);
    refused("row_ptr", "4", () -> GraphAttention.apply(four, four, four, graph));
  }

  private static Tensor part(Tensor joined, int at) {
    return joined.view(20, 4, 2, 8).select(1, at);
  }

  private static Tensor[] inputs(ScalarType type, long nodes, long heads, long channels, long seed) {
    Random random = new Random(seed);
    Tensor[] inputs = new Tensor[3];
    for (int i = 0; i < 3; i++) {
      inputs[i] = Tensors.normal(random, type, nodes, heads, channels);
    }
    return inputs;
  }

  private static void check(ScalarType type, Graphs edges, long heads, long channels, double p, long seed, long dataSeed) {
    Graph graph = edges.build();
    GraphAttention.Options options = GraphAttention.options();
    if (p > 0) {
      options.dropout(p, seed, 6);
    }
    double scale = 1 / Math.sqrt(channels);
    Acceptance.check(
        in -> new Tensor[] {GraphAttention.apply(in[0], in[1], in[2], graph, options)},
        in -> new Tensor[] {
          Formulas.graphAttention(in[0], in[1], in[2], edges.source(), edges.target(), scale, new Formulas.Keep(p, seed, 6))
        },
        type,
        inputs(type, edges.nodes(), heads, channels, dataSeed));
  }
}
