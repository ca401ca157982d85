// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.AttentionArgumentsTest.refused;
import static org.assertj.core.api.Assertions.assertThat;

import io.molfuse.ops.VaeLoss.Reduction;
import java.util.Random;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** OPERATORS.md 3: the loss with the vocabulary projection fused in, against projection, then formula. */
class LinearVaeLossTest extends InScope {
  @ParameterizedTest
  @CsvSource({"1,1,1,1", "2,3,5,7", "3,17,39,24", "4,33,40,64", "2,9,300,33", "1,70,130,16"})
  void anySizeTypeAndReductionMatchesTheFormula(int b, int t, int k, int c) {
    for (ScalarType type : new ScalarType[] {ScalarType.Float, ScalarType.Double, ScalarType.BFloat16, ScalarType.Half}) {
      for (Reduction reduction : Reduction.values()) {
        check(type, b, t, k, c, true, reduction);
        check(type, b, t, k, c, false, reduction);
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Reduction.class)
  void gradientsPassFiniteDifferences(Reduction reduction) {
    Tensor targets = targets(2, 3, 4);
    Acceptance.checkFiniteDifferences(in -> fused(in, targets, true, reduction), inputs(ScalarType.Double, 2, 3, 4, 5));
  }

  @ParameterizedTest
  @EnumSource(Reduction.class)
  void countsEqualThoseOfTheLossOfLogits(Reduction reduction) {
    Tensor targets = targets(3, 20, 11);
    Tensor[] in = inputs(ScalarType.Double, 3, 20, 11, 6);
    VaeLoss.Options options = VaeLoss.options().reduction(reduction);
    VaeLoss.Result linear = VaeLoss.linear(in[0], in[1], in[2], targets, in[3], in[4], options);
    VaeLoss.Result logits = VaeLoss.apply(in[0].matmul(in[1].t()).add(in[2]), targets, in[3], in[4], options);
    assertThat(linear.correct().equal(logits.correct())).isTrue();
    assertThat(linear.tokenCount().equal(logits.tokenCount())).isTrue();
  }

  @Test
  void anAllPaddingBatchHasZeroReconAndZeroGradients() {
    Tensor[] leaves = Acceptance.leaves(inputs(ScalarType.Float, 2, 5, 7, 6), ScalarType.Float);
    VaeLoss.Result result = VaeLoss.linear(
        leaves[0], leaves[1], leaves[2], Tensors.longs(new long[10], 2, 5), leaves[3], leaves[4], VaeLoss.options().beta(0));
    assertThat(Tensors.item(result.recon())).isZero();
    result.total().backward();
    for (int i = 0; i < 3; i++) {
      assertThat(Tensors.values(leaves[i].grad())).containsOnly(0);
    }
  }

  @Test
  void stridedInputsAreReadCorrectly() {
    Tensor targets = targets(3, 4, 6);
    Tensor[] in = inputs(ScalarType.Float, 3, 4, 6, 8);
    Random random = new Random(1);
    Tensor hidden = Tensors.normal(random, ScalarType.Float, 4, 3, 8);
    Tensor weight = Tensors.normal(random, ScalarType.Float, 8, 6);
    Acceptance.check(
        x -> fused(new Tensor[] {x[0].transpose(0, 1), x[1].t(), x[2], x[3], x[4]}, targets, true, Reduction.MEAN),
        x -> formula(new Tensor[] {x[0].transpose(0, 1), x[1].t(), x[2], x[3], x[4]}, targets, true, Reduction.MEAN),
        ScalarType.Float,
        hidden, weight, in[2], in[3], in[4]);
  }

  @Test
  void theGradientMayBeScaled() {
    // As a loss scaler or gradient accumulation does.
    Tensor targets = targets(2, 5, 9);
    Acceptance.check(
        x -> new Tensor[] {Tensors.multiply(fused(x, targets, true, Reduction.MEAN)[0], 1024)},
        x -> new Tensor[] {Tensors.multiply(formula(x, targets, true, Reduction.MEAN)[0], 1024)},
        ScalarType.Float,
        inputs(ScalarType.Float, 2, 5, 9, 8));
  }

  @Test
  void logitsAreNeverStored() {
    // Logits of 16 x 512 x 6000 in f32 would take 188 MiB.
    Tensor targets = targets(16, 512, 6000);
    Tensor[] leaves = Acceptance.leaves(inputs(ScalarType.Float, 16, 512, 6000, 16), ScalarType.Float);
    Tensor[] warm = Acceptance.leaves(inputs(ScalarType.Float, 2, 8, 6000, 16), ScalarType.Float);
    fused(warm, targets(2, 8, 6000), true, Reduction.MEAN)[0].backward();
    ResidentMemory.resetPeak();
    long before = ResidentMemory.peakKiB();
    fused(leaves, targets, true, Reduction.MEAN)[0].backward();
    assertThat(ResidentMemory.peakKiB() - before).as("growth of peak memory in KiB").isLessThan(48 * 1024);
  }

  @Test
  void wrongArgumentsAreRefused() {
    Tensor targets = targets(2, 3, 4);
    Tensor[] in = inputs(ScalarType.Float, 2, 3, 4, 5);
    VaeLoss.Options options = VaeLoss.options();
    refused("weight", "null", () -> VaeLoss.linear(in[0], null, in[2], targets, in[3], in[4], options));
    refused("weight", "[4, 4]", () -> VaeLoss.linear(in[0], in[1].narrow(1, 0, 4), in[2], targets, in[3], in[4], options));
    refused("weight_bias", "[3]", () -> VaeLoss.linear(in[0], in[1], in[2].narrow(0, 0, 3), targets, in[3], in[4], options));
    refused("hidden", "[6, 5]", () -> VaeLoss.linear(in[0].view(6, 5), in[1], in[2], targets, in[3], in[4], options));
    refused("targets", "9", () -> VaeLoss.linear(in[0], in[1], in[2], Tensors.longs(new long[] {1, 9, 1, 1, 1, 1}, 2, 3), in[3], in[4], options));
    refused("classSecond", "linear", () -> VaeLoss.linear(in[0], in[1], in[2], targets, in[3], in[4], VaeLoss.options().classSecond(true)));
    refused("inPlaceBackward", "linear", () -> VaeLoss.linear(in[0], in[1], in[2], targets, in[3], in[4], VaeLoss.options().inPlaceBackward(true)));
  }

  private static void check(ScalarType type, int b, int t, int k, int c, boolean biased, Reduction reduction) {
    Tensor targets = targets(b, t, k);
    Acceptance.check(
        in -> fused(in, targets, biased, reduction), in -> formula(in, targets, biased, reduction), type, inputs(type, b, t, k, c));
  }

  private static Tensor[] inputs(ScalarType type, int b, int t, int k, int c) {
    Random random = new Random(17);
    return new Tensor[] {
      Tensors.normal(random, type, b, t, c),
      Tensors.normal(random, 2 / Math.sqrt(c), type, k, c),
      Tensors.normal(random, type, k),
      Tensors.normal(random, type, b, 4),
      Tensors.normal(random, type, b, 4)
    };
  }

  private static Tensor targets(int b, int t, int k) {
    Random random = new Random(18);
    return Tensors.longs(random.ints(b * t, 0, k).mapToLong(x -> random.nextInt(4) == 0 ? 0 : x).toArray(), b, t);
  }

  private static Tensor[] fused(Tensor[] in, Tensor targets, boolean biased, Reduction reduction) {
    return VaeLossCase.outputs(
        VaeLoss.linear(in[0], in[1], biased ? in[2] : null, targets, in[3], in[4], VaeLoss.options().beta(0.3).reduction(reduction)),
        reduction);
  }

  private static Tensor[] formula(Tensor[] in, Tensor targets, boolean biased, Reduction reduction) {
    Tensor logits = in[0].matmul(in[1].t());
    Tensor[] all = Formulas.vaeLoss(biased ? logits.add(in[2]) : logits, targets, in[3], in[4], 0.3, 0, reduction);
    return reduction == Reduction.SUM ? new Tensor[] {all[0], all[1], all[2]} : all;
  }
}
