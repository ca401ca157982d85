// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.AttentionArgumentsTest.refused;
import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.LongRange;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptions;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** OPERATORS.md 4: pooling and concatenation against index_add and cat. */
class LatentConcatTest extends InScope {
  private static final ScalarType[] TYPES = {ScalarType.Float, ScalarType.Double, ScalarType.BFloat16, ScalarType.Half};
  /** The second and the last graph are empty. */
  private static final long[] GRAPH_PTR = {0, 5, 5, 6, 25, 25};

  @ParameterizedTest
  @EnumSource(names = {"Float", "Double", "BFloat16", "Half"})
  void everyTypeMatchesTheFormulaAndEmptyGraphsGiveZero(ScalarType type) {
    Tensor[] layers = layers(type, 25, 1, 33, 33, 33);
    check(type, GRAPH_PTR, layers);
    check(type, GRAPH_PTR, layers(type, 25, 2, 64));
    check(type, GRAPH_PTR, layers(type, 25, 3, 7, 1, 40, 256));
    Tensor out = LatentConcat.apply(List.of(layers), Tensors.longs(GRAPH_PTR));
    assertThat(Tensors.values(out.select(0, 1))).containsOnly(0);
    assertThat(Tensors.values(out.select(0, 4))).containsOnly(0);
  }

  @Property(tries = 50)
  void anyLayersAndGraphsMatchTheFormula(
      @ForAll @IntRange(min = 1, max = 10) int graphs,
      @ForAll @IntRange(min = 1, max = 8) int count,
      @ForAll @IntRange(min = 0, max = 3) int type,
      @ForAll @LongRange(min = 0, max = Long.MAX_VALUE) long seed) {
    Random random = new Random(seed);
    long[] graphPtr = new long[graphs + 1];
    for (int b = 0; b < graphs; b++) {
      graphPtr[b + 1] = graphPtr[b] + random.nextInt(12);
    }
    try (PointerScope scope = new PointerScope()) {
      long[] widths = random.longs(count, 1, 70).toArray();
      check(TYPES[type], graphPtr, layers(TYPES[type], graphPtr[graphs], seed, widths));
    }
  }

  @Test
  void int32PointersGiveTheSame() {
    Tensor[] layers = layers(ScalarType.Float, 25, 1, 16, 16);
    Tensor withInts = LatentConcat.apply(List.of(layers), Tensors.ints(0, 5, 5, 6, 25, 25));
    assertThat(withInts.equal(LatentConcat.apply(List.of(layers), Tensors.longs(GRAPH_PTR)))).isTrue();
  }

  @Test
  void aVectorMayBeGivenInsteadOfAList() {
    Tensor[] layers = layers(ScalarType.Float, 25, 1, 16, 8);
    Tensor expected = LatentConcat.apply(List.of(layers), Tensors.longs(GRAPH_PTR));
    assertThat(LatentConcat.apply(new TensorVector(layers), Tensors.longs(GRAPH_PTR)).equal(expected)).isTrue();
  }

  @Test
  void stridedLayersAreReadCorrectly() {
    Tensor wide = Tensors.normal(new Random(1), ScalarType.Float, 10, 30, 2);
    Acceptance.check(
        in -> new Tensor[] {LatentConcat.apply(views(in[0]), Tensors.longs(GRAPH_PTR))},
        in -> new Tensor[] {Formulas.latentConcat(views(in[0]), GRAPH_PTR)},
        ScalarType.Float,
        wide);
  }

  @ParameterizedTest
  @EnumSource(names = {"Float", "Double", "BFloat16", "Half"})
  void fillingSlotBySlotGivesTheSameAndTheSameGradients(ScalarType type) {
    Tensor[] layers = layers(type, 25, 4, 12, 30, 1);
    Acceptance.check(
        in -> {
          Tensor out = torch.empty(new long[] {5, 43}, new TensorOptions(type), null);
          out.fill_(new Scalar(Double.NaN));
          long column = 0;
          for (Tensor layer : in) {
            // As in an encoder, where each layer is computed between the writes.
            out = LatentConcat.into(out, column, Tensors.multiply(layer, 2), Tensors.longs(GRAPH_PTR));
            column += layer.size(1);
          }
          return new Tensor[] {out};
        },
        in -> {
          List<Tensor> doubled = new ArrayList<>();
          for (Tensor layer : in) {
            doubled.add(Tensors.multiply(layer, 2));
          }
          return new Tensor[] {Formulas.latentConcat(doubled, GRAPH_PTR)};
        },
        type,
        layers);
  }

  @Test
  void fillingOneSlotLeavesTheOthersAlone() {
    Tensor out = Tensors.full(7, ScalarType.Float, 5, 9);
    LatentConcat.into(out, 3, layers(ScalarType.Float, 25, 1, 4)[0], Tensors.longs(GRAPH_PTR));
    assertThat(Tensors.values(out.narrow(1, 0, 3))).containsOnly(7);
    assertThat(Tensors.values(out.narrow(1, 7, 2))).containsOnly(7);
    assertThat(Tensors.values(out.narrow(1, 3, 4))).doesNotContain(7);
  }

  @ParameterizedTest
  @EnumSource(names = {"Float", "Double", "BFloat16", "Half"})
  void pooledInputsOfUnequalWidthsStandSideBySide(ScalarType type) {
    Acceptance.check(
        in -> new Tensor[] {LatentConcat.pooled(List.of(in))},
        in -> new Tensor[] {torch.cat(new TensorVector(in), 1)},
        type,
        layers(type, 6, 5, 3, 64, 1, 17));
  }

  @Test
  void gradientsPassFiniteDifferences() {
    long[] graphPtr = {0, 2, 2, 5};
    Acceptance.checkFiniteDifferences(
        in -> new Tensor[] {LatentConcat.apply(List.of(in), Tensors.longs(graphPtr))}, layers(ScalarType.Double, 5, 6, 3, 2));
    Acceptance.checkFiniteDifferences(
        in -> new Tensor[] {LatentConcat.pooled(List.of(in))}, layers(ScalarType.Double, 3, 6, 3, 2));
  }

  @Test
  void emptyBatchesGiveEmptyResults() {
    assertThat(LatentConcat.apply(List.of(layers(ScalarType.Float, 0, 1, 3, 4)), Tensors.longs(0)).shape()).containsExactly(0, 7);
    Tensor zeros = LatentConcat.apply(List.of(layers(ScalarType.Float, 0, 1, 3, 4)), Tensors.longs(0, 0, 0));
    assertThat(Tensors.values(zeros)).hasSize(14).containsOnly(0);
  }

  @Test
  void wrongArgumentsAreRefused() {
    Tensor a = Tensors.full(1, ScalarType.Float, 6, 4);
    Tensor ptr = Tensors.longs(0, 2, 6);
    refused("layers", "none", () -> LatentConcat.apply(List.of(), ptr));
    refused("layers", "null", () -> LatentConcat.apply((List<Tensor>) null, ptr));
    refused("layers[1]", "[24]", () -> LatentConcat.apply(List.of(a, a.view(24)), ptr));
    refused("layers", "[5, 4]", () -> LatentConcat.apply(List.of(a, a.narrow(0, 0, 5)), ptr));
    refused("layers", "Double", () -> LatentConcat.apply(List.of(a, a.to(ScalarType.Double)), ptr));
    refused("graph_ptr", "float32", () -> LatentConcat.apply(List.of(a), Tensors.zeros(ScalarType.Float, 3)));
    refused("graph_ptr", "7", () -> LatentConcat.apply(List.of(a), Tensors.longs(0, 2, 7)));
    refused("graph_ptr", "1", () -> LatentConcat.apply(List.of(a), Tensors.longs(1, 2, 6)));
    refused("graph_ptr", "2", () -> LatentConcat.apply(List.of(a), Tensors.longs(0, 4, 2, 6)));
    refused("out", "[2, 5]", () -> LatentConcat.into(Tensors.zeros(ScalarType.Float, 2, 5), 2, a, ptr));
    refused("out", "3", () -> LatentConcat.into(Tensors.zeros(ScalarType.Float, 3, 5), 0, a, ptr));
    refused("column_offset", "-1", () -> LatentConcat.into(Tensors.zeros(ScalarType.Float, 2, 5), -1, a, ptr));
    refused("pooled", "[5, 4]", () -> LatentConcat.pooled(List.of(a, a.narrow(0, 0, 5))));
    Tensor closedTensor = Tensors.full(1, ScalarType.Float, 6, 4);
    closedTensor.close();
    refused("layers[1]", "closed", () -> LatentConcat.apply(List.of(a, closedTensor), ptr));
    TensorVector closed = new TensorVector(a);
    closed.close();
    refused("layers", "closed", () -> LatentConcat.apply(closed, ptr));
    refused("pooled", "closed", () -> LatentConcat.pooled(closed));
  }

  private static List<Tensor> views(Tensor wide) {
    // [V,C] with columns as the outer memory dimension, and every second element of rows.
    return List.of(wide.select(2, 0).narrow(1, 0, 25).t(), wide.select(2, 1).narrow(1, 5, 25).t());
  }

  private static Tensor[] layers(ScalarType type, long nodes, long seed, long... widths) {
    Random random = new Random(seed);
    Tensor[] layers = new Tensor[widths.length];
    for (int l = 0; l < widths.length; l++) {
      layers[l] = Tensors.normal(random, type, nodes, widths[l]);
    }
    return layers;
  }

  private static void check(ScalarType type, long[] graphPtr, Tensor[] layers) {
    Acceptance.check(
        in -> new Tensor[] {LatentConcat.apply(List.of(in), Tensors.longs(graphPtr))},
        in -> new Tensor[] {Formulas.latentConcat(List.of(in), graphPtr)},
        type,
        layers);
  }
}
