// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** OPERATORS.md 1, the padded form: outputs and gradients against the formula. */
class AttentionTest extends InScope {
  static Stream<Arguments> headSizesAndTypes() {
    List<Arguments> cases = new ArrayList<>();
    for (ScalarType type : new ScalarType[] {ScalarType.Double, ScalarType.Float, ScalarType.BFloat16, ScalarType.Half}) {
      for (long d : new long[] {8, 24, 40, 64, 72, 128, 256}) {
        cases.add(Arguments.of(d, type));
      }
    }
    return cases.stream();
  }

  @ParameterizedTest
  @MethodSource("headSizesAndTypes")
  void everyHeadSizeAndTypeMatchesTheFormula(long d, ScalarType type) {
    new AttentionCase(2, 3, 19, 21, d).check(type);
  }

  @ParameterizedTest
  @CsvSource({"1,1", "1,7", "7,1", "2,3", "16,16", "33,17", "17,33", "64,64", "65,130", "128,128", "131,67"})
  void anyLengthsMatchTheFormula(long n, long m) {
    new AttentionCase(2, 2, n, m, 32).check(ScalarType.Float);
    new AttentionCase(2, 2, n, m, 32).causal().check(ScalarType.Float);
    new AttentionCase(1, 2, n, m, 16).causal().check(ScalarType.Double);
    new AttentionCase(1, 2, n, m, 16).causal().check(ScalarType.BFloat16);
  }

  @Test
  void shortSequencesOfManyBatchesMatchTheFormula() {
    new AttentionCase(37, 8, 4, 4, 16).check(ScalarType.Float);
    new AttentionCase(37, 8, 4, 4, 16).bias(1, 8, 4, 4).check(ScalarType.Float);
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
  void biasIsBroadcastAndItsGradientReducedInAllSixteenWays(int kind) {
    long[] shape = {(kind & 1) != 0 ? 1 : 3, (kind & 2) != 0 ? 1 : 2, (kind & 4) != 0 ? 1 : 9, (kind & 8) != 0 ? 1 : 11};
    new AttentionCase(3, 2, 9, 11, 24).bias(shape).check(ScalarType.Float);
    new AttentionCase(3, 2, 9, 11, 24).bias(shape).causal().check(ScalarType.BFloat16);
    new AttentionCase(3, 2, 9, 11, 8).bias(shape).keyLengths(0, 11, 4).check(ScalarType.Double);
  }

  @Test
  void biasMayLackLeadingDimensions() {
    new AttentionCase(3, 2, 5, 6, 16).bias(2, 5, 6).check(ScalarType.Float);
    new AttentionCase(3, 2, 5, 6, 16).bias(5, 6).check(ScalarType.Float);
    new AttentionCase(3, 2, 5, 6, 16).bias(6).check(ScalarType.Float);
  }

  @Test
  void biasMayBeAnyStridedView() {
    Random random = new Random(3);
    Tensor[] qkv = new AttentionCase(2, 2, 5, 7, 16).inputs(ScalarType.Float);
    Tensor wide = Tensors.normal(random, ScalarType.Float, 7, 5, 2);
    Acceptance.Formula fused = in -> new Tensor[] {
      Attention.apply(in[0], in[1], in[2], Attention.options().bias(in[3].permute(2, 1, 0)))
    };
    Acceptance.Formula formula = in -> new Tensor[] {
      Formulas.attention(
          in[0], in[1], in[2], in[3].permute(2, 1, 0), null, Formulas.visible(2, 5, 7, false, null), 0.25, Formulas.Keep.ALL)
    };
    Acceptance.check(fused, formula, ScalarType.Float, qkv[0], qkv[1], qkv[2], wide);
  }

  @ParameterizedTest
  @CsvSource({"0,5,5", "1,9,9", "3,9,14", "3,14,9", "50,9,9", "31,64,64", "4,1,6", "4,6,1"})
  void relativeBiasIsClampedToItsReachAndItsGradientReduced(long reach, long n, long m) {
    new AttentionCase(2, 3, n, m, 16).relative(reach).check(ScalarType.Float);
    new AttentionCase(2, 3, n, m, 16).relative(reach).causal().check(ScalarType.Double);
    new AttentionCase(2, 3, n, m, 16).relative(reach).check(ScalarType.BFloat16);
    new AttentionCase(2, 3, n, m, 16).relative(reach).check(ScalarType.Half);
  }

  @Test
  void biasAndRelativeBiasAndMasksWorkTogether() {
    AttentionCase all = new AttentionCase(3, 2, 20, 23, 40).bias(1, 2, 20, 23).relative(6).keyLengths(23, 0, 9).causal().scale(0.3);
    all.check(ScalarType.Float);
    all.check(ScalarType.BFloat16);
    all.check(ScalarType.Half);
    all.check(ScalarType.Double);
  }

  @Test
  void keysBeyondTheirLengthAreInvisible() {
    new AttentionCase(4, 2, 6, 33, 16).keyLengths(33, 1, 0, 32).check(ScalarType.Float);
    new AttentionCase(4, 2, 33, 33, 16).keyLengths(33, 1, 0, 32).causal().check(ScalarType.Float);
  }

  @Test
  void keyLengthsMayBeInt32() {
    Tensor[] in = new AttentionCase(3, 2, 4, 6, 8).inputs(ScalarType.Float);
    Tensor withInts = Attention.apply(in[0], in[1], in[2], Attention.options().keyLengths(Tensors.ints(6, 0, 3)));
    Tensor withLongs = Attention.apply(in[0], in[1], in[2], Attention.options().keyLengths(Tensors.longs(6, 0, 3)));
    assertThat(withInts.equal(withLongs)).isTrue();
  }

  @Test
  void aRowThatSeesNothingGivesZeroAndNoGradient() {
    Tensor[] leaves =
        Acceptance.leaves(
            new Tensor[] {
              Tensors.full(2, ScalarType.Float, 1, 1, 5, 8),
              Tensors.full(3, ScalarType.Float, 1, 1, 3, 8),
              Tensors.full(4, ScalarType.Float, 1, 1, 3, 8),
              Tensors.full(1, ScalarType.Float, 5, 3)
            },
            ScalarType.Float);
    // With N = 5 and M = 3 under the causal mask the first two queries see nothing.
    Tensor out = Attention.apply(leaves[0], leaves[1], leaves[2], Attention.options().causal(true).bias(leaves[3]));
    assertThat(Tensors.values(out.narrow(2, 0, 2))).containsOnly(0);
    assertThat(Tensors.values(out.narrow(2, 2, 3))).containsOnly(4);
    Tensor huge = Tensors.full(1e30, ScalarType.Float, 1, 1, 5, 8);
    huge.narrow(2, 2, 3).fill_(new Scalar(1.0));
    Tensor none = huge.clone();
    none.narrow(2, 0, 2).fill_(new Scalar(0.0));
    List<Tensor> fromAll = Acceptance.gradients(new Tensor[] {out}, leaves, new Tensor[] {huge});
    List<Tensor> fromSeeing = Acceptance.gradients(new Tensor[] {out}, leaves, new Tensor[] {none});
    for (int i = 0; i < leaves.length; i++) {
      assertThat(fromAll.get(i).equal(fromSeeing.get(i))).as("gradient %d", i).isTrue();
    }
  }

  @Test
  void aBatchThatSeesNothingHasZeroGradients() {
    AttentionCase none = new AttentionCase(2, 2, 5, 6, 16).bias(2, 2, 5, 6).relative(2).keyLengths(0, 0);
    Tensor[] leaves = Acceptance.leaves(none.inputs(ScalarType.Float), ScalarType.Float);
    Tensor[] out = none.fused(leaves);
    assertThat(Tensors.values(out[0])).containsOnly(0);
    Tensor[] upstream = {Tensors.full(1, ScalarType.Float, 2, 2, 5, 16)};
    for (Tensor grad : Acceptance.gradients(out, leaves, upstream)) {
      assertThat(Tensors.values(grad)).containsOnly(0);
    }
  }

  @ParameterizedTest
  @EnumSource(AttentionCase.Layout.class)
  void everyMemoryLayoutIsReadCorrectly(AttentionCase.Layout layout) {
    new AttentionCase(2, 3, 13, 18, 24).layout(layout).check(ScalarType.Float);
    new AttentionCase(2, 3, 13, 18, 24).layout(layout).bias(2, 1, 13, 18).check(ScalarType.Half);
    new AttentionCase(2, 3, 13, 18, 24).layout(layout).causal().check(ScalarType.BFloat16);
    new AttentionCase(2, 3, 13, 18, 24).layout(layout).check(ScalarType.Double);
  }

  @Test
  void theResultHasQuerysMemoryOrder() {
    Tensor[] in = new AttentionCase(2, 3, 5, 6, 8).layout(AttentionCase.Layout.HEADS_INSIDE).inputs(ScalarType.Float);
    Tensor out = Attention.apply(in[0].transpose(1, 2), in[1].transpose(1, 2), in[2].transpose(1, 2));
    assertThat(out.transpose(1, 2).is_contiguous()).isTrue();
  }

  @Test
  void gradientsThatArriveAsViewsAreReadCorrectly() {
    Tensor[] inputs = new AttentionCase(2, 2, 5, 6, 8).inputs(ScalarType.Float);
    AttentionCase problem = new AttentionCase(2, 2, 5, 6, 8);
    Acceptance.check(
        in -> new Tensor[] {problem.fused(in)[0].permute(3, 0, 2, 1).contiguous()},
        in -> new Tensor[] {problem.formula(in)[0].permute(3, 0, 2, 1).contiguous()},
        ScalarType.Float,
        inputs);
    // The gradient of a sum arrives expanded, with strides 0.
    Acceptance.check(
        in -> new Tensor[] {problem.fused(in)[0].sum()},
        in -> new Tensor[] {problem.formula(in)[0].sum()},
        ScalarType.Float,
        inputs);
  }

  @Test
  void gradientsPassFiniteDifferences() {
    new AttentionCase(2, 2, 3, 4, 8).checkFiniteDifferences();
    new AttentionCase(2, 2, 4, 3, 8).bias(1, 2, 4, 1).relative(1).keyLengths(2, 3).causal().scale(0.7).checkFiniteDifferences();
  }

  @Test
  void zeroSizeBatchesGiveEmptyResults() {
    Tensor[] leaves = Acceptance.leaves(new AttentionCase(0, 2, 3, 4, 8).inputs(ScalarType.Float), ScalarType.Float);
    Tensor out = Attention.apply(leaves[0], leaves[1], leaves[2]);
    assertThat(out.shape()).containsExactly(0, 2, 3, 8);
    Tensor[] upstream = {Tensors.zeros(ScalarType.Float, 0, 2, 3, 8)};
    assertThat(Acceptance.gradients(new Tensor[] {out}, leaves, upstream).get(1).shape()).containsExactly(0, 2, 4, 8);
  }

  @Test
  void zeroSizeBatchesGiveZeroGradientToASharedBias() {
    Tensor[] leaves =
        Acceptance.leaves(new AttentionCase(0, 2, 3, 4, 8).bias(1, 2, 3, 4).relative(2).inputs(ScalarType.Float), ScalarType.Float);
    Tensor out =
        Attention.apply(leaves[0], leaves[1], leaves[2], Attention.options().bias(leaves[3]).relativeBias(leaves[4]));
    List<Tensor> grads =
        Acceptance.gradients(new Tensor[] {out}, leaves, new Tensor[] {Tensors.zeros(ScalarType.Float, 0, 2, 3, 8)});
    assertThat(Tensors.values(grads.get(3))).hasSize(24).containsOnly(0);
    assertThat(Tensors.values(grads.get(4))).hasSize(10).containsOnly(0);
  }

  @ParameterizedTest
  @ValueSource(doubles = {5, 20, 60})
  void largeScoresNeitherOverflowNorLosePrecision(double deviation) {
    // Many rows, since the largest error of a few is an accident of either side.
    AttentionCase problem = new AttentionCase(4, 4, 64, 100, 32);
    Tensor[] inputs = problem.inputs(ScalarType.Float);
    inputs[0] = Tensors.normal(new Random(11), deviation, ScalarType.Float, 4, 4, 64, 32);
    Acceptance.check(problem::fused, problem::formula, ScalarType.Float, inputs);
  }

  @Test
  void nanInTheInputReachesOnlyTheRowsThatSeeIt() {
    Tensor[] in = new AttentionCase(2, 1, 3, 4, 8).inputs(ScalarType.Float);
    in[1].narrow(0, 1, 1).narrow(2, 3, 1).fill_(new Scalar(Double.NaN));
    Tensor out = Attention.apply(in[0], in[1], in[2]);
    assertThat(Tensors.anyNaN(out.narrow(0, 0, 1))).isFalse();
    assertThat(Tensors.values(out.narrow(0, 1, 1))).containsOnly(Double.NaN);
    Tensor masked = Attention.apply(in[0], in[1], in[2], Attention.options().keyLengths(Tensors.longs(4, 3)));
    assertThat(Tensors.anyNaN(masked)).isFalse();
  }

  @Test
  void aBiasInF32AddsToLowPrecisionScores() {
    AttentionCase problem = new AttentionCase(2, 2, 6, 7, 16).bias(1, 2, 6, 7);
    Tensor[] in = problem.inputs(ScalarType.BFloat16);
    Tensor bias = in[3].to(ScalarType.Float).clone().set_requires_grad(true);
    Tensor out = Attention.apply(in[0], in[1], in[2], Attention.options().bias(bias));
    Tensor same = Attention.apply(in[0], in[1], in[2], Attention.options().bias(in[3]));
    assertThat(Checks.type(out)).isEqualTo(ScalarType.BFloat16);
    assertThat(out.equal(same)).isTrue();
    List<Tensor> grads =
        Acceptance.gradients(new Tensor[] {out}, new Tensor[] {bias}, new Tensor[] {Tensors.full(1, ScalarType.BFloat16, out.shape())});
    assertThat(Checks.type(grads.get(0))).isEqualTo(ScalarType.Float);
  }

  @Test
  void nothingOfSizeNTimesMIsStored() {
    // A 6144 x 6144 matrix of f32 would take 144 MiB.
    long n = 6144;
    AttentionCase large = new AttentionCase(1, 1, n, n, 8).relative(16);
    Tensor[] warm = Acceptance.leaves(new AttentionCase(1, 1, 64, 64, 8).relative(16).inputs(ScalarType.Float), ScalarType.Float);
    Tensor[] leaves = Acceptance.leaves(large.inputs(ScalarType.Float), ScalarType.Float);
    large.fused(warm)[0].sum().backward();
    ResidentMemory.resetPeak();
    long before = ResidentMemory.peakKiB();
    large.fused(leaves)[0].sum().backward();
    assertThat(ResidentMemory.peakKiB() - before).as("growth of peak memory in KiB").isLessThan(48 * 1024);
  }
}
