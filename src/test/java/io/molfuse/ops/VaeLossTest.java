// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.AttentionArgumentsTest.refused;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.molfuse.ops.VaeLoss.Reduction;
import java.util.Arrays;
import java.util.Random;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.LongRange;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** OPERATORS.md 3: the loss of logits against the formula. */
class VaeLossTest extends InScope {
  private static final ScalarType[] TYPES = {ScalarType.Float, ScalarType.Double, ScalarType.BFloat16, ScalarType.Half};

  @ParameterizedTest
  @CsvSource({"1,1,1", "1,1,2", "2,3,5", "3,17,39", "4,33,40", "2,9,64", "2,5,300", "1,3,1031"})
  void anySizeTypeLayoutAndReductionMatchesTheFormula(int b, int t, int k) {
    for (ScalarType type : TYPES) {
      for (Reduction reduction : Reduction.values()) {
        new VaeLossCase(b, t, k, 6).reduction(reduction).check(type);
        new VaeLossCase(b, t, k, 6).reduction(reduction).classSecond().check(type);
      }
    }
  }

  @Property(tries = 50)
  void anyProblemMatchesTheFormula(
      @ForAll @IntRange(min = 1, max = 9) int b,
      @ForAll @IntRange(min = 1, max = 40) int t,
      @ForAll @IntRange(min = 1, max = 90) int k,
      @ForAll @IntRange(min = 1, max = 20) int latent,
      @ForAll @IntRange(min = 0, max = 3) int type,
      @ForAll Reduction reduction,
      @ForAll boolean classSecond,
      @ForAll @LongRange(min = 0, max = Long.MAX_VALUE) long seed) {
    try (PointerScope scope = new PointerScope()) {
      VaeLossCase problem = new VaeLossCase(b, t, k, latent).reduction(reduction).dataSeed(seed);
      if (classSecond) {
        problem.classSecond();
      }
      problem.check(TYPES[type]);
    }
  }

  @Test
  void thePaddingIndexMayLieOutsideTheClasses() {
    new VaeLossCase(3, 8, 11, 4).padIndex(-100).check(ScalarType.Float);
    new VaeLossCase(3, 8, 11, 4).padIndex(11).check(ScalarType.Float);
    new VaeLossCase(3, 8, 11, 4).padIndex(5).classSecond().check(ScalarType.Float);
  }

  @ParameterizedTest
  @EnumSource(Reduction.class)
  void latentStatisticsMayBeF32BesideLowPrecisionLogits(Reduction reduction) {
    VaeLossCase problem = new VaeLossCase(3, 8, 11, 4).reduction(reduction);
    Tensor[] low = problem.inputs(ScalarType.BFloat16);
    Tensor[] outputs = problem.fused(new Tensor[] {low[0], low[1].to(ScalarType.Float), low[2].to(ScalarType.Float)});
    Tensor[] same = problem.fused(low);
    for (int i = 0; i < outputs.length; i++) {
      assertThat(Checks.type(outputs[i])).isEqualTo(ScalarType.Float);
      assertThat(Tensors.maxDifference(Tensors.values(outputs[i]), Tensors.values(same[i]))).isLessThan(1e-4);
    }
  }

  @Test
  void countsAreOfMaskedPositions() {
    Tensor logits = Tensors.of(new double[] {5, 1, 0, /**/ 0, 7, 1, /**/ 2, 2, 1, /**/ 9, 0, 0}, 1, 4, 3).to(ScalarType.Float);
    Tensor targets = Tensors.longs(new long[] {0, 2, 0, 1}, 1, 4);
    Tensor latent = Tensors.zeros(ScalarType.Float, 1, 2);
    for (Reduction reduction : Reduction.values()) {
      VaeLoss.Result result =
          VaeLoss.apply(logits, targets, latent, latent, VaeLoss.options().padIndex(1).reduction(reduction));
      assertThat(Tensors.item(result.tokenCount())).isEqualTo(3);
      // Right at position 0, wrong at 1, and a tie at 2, which goes to the lowest class: right.
      assertThat(Tensors.item(result.correct())).isEqualTo(2);
      assertThat(result.tokenCount().requires_grad()).isFalse();
    }
  }

  @Test
  void perplexityIsTheExponentialOfRecon() {
    VaeLoss.Result result = new VaeLossCase(2, 5, 7, 3).result(new VaeLossCase(2, 5, 7, 3).inputs(ScalarType.Double));
    assertThat(Tensors.item(result.perplexity())).isCloseTo(Math.exp(Tensors.item(result.recon())), within(1e-9));
    assertThat(Tensors.item(result.total()))
        .isCloseTo(Tensors.item(result.recon()) + 0.3 * Tensors.item(result.kl()), within(1e-9));
  }

  @ParameterizedTest
  @EnumSource(Reduction.class)
  void anAllPaddingBatchHasZeroReconAndZeroGradients(Reduction reduction) {
    Tensor[] leaves = Acceptance.leaves(new VaeLossCase(2, 5, 7, 3).inputs(ScalarType.Float), ScalarType.Float);
    VaeLoss.Result result = VaeLoss.apply(
        leaves[0], Tensors.longs(new long[10], 2, 5), leaves[1], leaves[2], VaeLoss.options().beta(0).reduction(reduction));
    Tensor loss = reduction == Reduction.NONE ? result.nll().sum() : result.total();
    assertThat(Tensors.item(loss)).isZero();
    assertThat(Tensors.item(result.tokenCount())).isZero();
    loss.backward();
    assertThat(Tensors.values(leaves[0].grad())).containsOnly(0);
  }

  @Test
  void theGradientOfTheClampIsZeroOutsideIt() {
    Tensor logits = Tensors.zeros(ScalarType.Double, 1, 2, 3);
    Tensor mean = Tensors.leaf(Tensors.of(new double[] {0.5, 0.5, 0.5}, 1, 3));
    Tensor logVar = Tensors.leaf(Tensors.of(new double[] {-25, 11, 0.5}, 1, 3));
    VaeLoss.Result result = VaeLoss.apply(logits, Tensors.longs(new long[] {1, 2}, 1, 2), mean, logVar, VaeLoss.options());
    double kl = 0;
    for (double lv : new double[] {-20, 10, 0.5}) {
      kl += -0.5 * (1 + lv - 0.25 - Math.exp(lv)) / 3;
    }
    assertThat(Tensors.item(result.kl())).isCloseTo(kl, within(1e-9));
    result.total().backward();
    double[] grad = Tensors.values(logVar.grad());
    assertThat(grad[0]).isZero();
    assertThat(grad[1]).isZero();
    assertThat(grad[2]).isCloseTo(-0.5 * (1 - Math.exp(0.5)) / 3, within(1e-12));
  }

  @ParameterizedTest
  @EnumSource(Reduction.class)
  void gradientsPassFiniteDifferences(Reduction reduction) {
    VaeLossCase problem = new VaeLossCase(2, 3, 4, 3).reduction(reduction);
    Acceptance.checkFiniteDifferences(problem::fused, problem.inputs(ScalarType.Double));
    VaeLossCase second = new VaeLossCase(2, 3, 4, 3).reduction(reduction).classSecond();
    Acceptance.checkFiniteDifferences(second::fused, second.inputs(ScalarType.Double));
  }

  @ParameterizedTest
  @EnumSource(names = {"Float", "BFloat16", "Half", "Double"})
  void backwardMayWriteIntoTheLogits(ScalarType type) {
    for (Reduction reduction : Reduction.values()) {
      for (boolean classSecond : new boolean[] {false, true}) {
        VaeLossCase problem = new VaeLossCase(3, 6, 21, 4).reduction(reduction);
        if (classSecond) {
          problem.classSecond();
        }
        Tensor[] plain = Acceptance.leaves(problem.inputs(type), type);
        Tensor[] inPlace = Acceptance.leaves(problem.inputs(type), type);
        sum(problem.fused(plain)).backward();
        Tensor logits = Tensors.multiply(inPlace[0], 1);
        double[] before = Tensors.values(logits);
        problem.inPlace = true;
        sum(problem.fused(new Tensor[] {logits, inPlace[1], inPlace[2]})).backward();
        // Made in backward, not in forward: rounded once where the other is rounded twice.
        double[] expected = Tensors.values(plain[0].grad());
        double[] actual = Tensors.values(inPlace[0].grad());
        double largest = Arrays.stream(expected).map(Math::abs).max().orElseThrow();
        for (int n = 0; n < expected.length; n++) {
          assertThat(actual[n]).isCloseTo(expected[n], within(2 * largest * Tensors.epsilon(type)));
        }
        assertThat(inPlace[1].grad().equal(plain[1].grad())).isTrue();
        assertThat(Tensors.values(logits)).as("the logits' memory").isNotEqualTo(before).isEqualTo(actual);
      }
    }
  }

  @Test
  void aLeafIsNotOverwritten() {
    VaeLossCase problem = new VaeLossCase(2, 3, 4, 2);
    problem.inPlace = true;
    Tensor[] leaves = Acceptance.leaves(problem.inputs(ScalarType.Float), ScalarType.Float);
    refused("inplace_backward", "leaf", () -> problem.fused(leaves));
  }

  @Test
  void stridedLogitsAreReadCorrectly() {
    Tensor targets = new VaeLossCase(3, 6, 10, 4).targets();
    Tensor[] in = new VaeLossCase(3, 6, 10, 4).inputs(ScalarType.Float);
    Tensor wide = Tensors.normal(new Random(2), ScalarType.Float, 3, 8, 12, 2);
    VaeLoss.Options options = VaeLoss.options().padIndex(0);
    Acceptance.check(
        x -> new Tensor[] {VaeLoss.apply(window(x[0]), targets, x[1], x[2], options).total()},
        x -> new Tensor[] {Formulas.vaeLoss(window(x[0]), targets, x[1], x[2], 1, 0, Reduction.MEAN)[0]},
        ScalarType.Float,
        wide, in[1], in[2]);
  }

  @Test
  void targetsMayBeAnyStridedView() {
    VaeLossCase problem = new VaeLossCase(3, 6, 10, 4);
    Tensor[] in = problem.inputs(ScalarType.Float);
    Tensor transposed = problem.targets().transpose(0, 1).contiguous().transpose(0, 1);
    Tensor expected = problem.result(in).total();
    Tensor actual = VaeLoss.apply(in[0], transposed, in[1], in[2], VaeLoss.options().beta(0.3)).total();
    assertThat(actual.equal(expected)).isTrue();
  }

  @Test
  void withoutLatentStatisticsThereIsNoKl() {
    VaeLossCase problem = new VaeLossCase(3, 6, 10, 4);
    Tensor[] in = problem.inputs(ScalarType.Float);
    VaeLoss.Result with = problem.result(in);
    VaeLoss.Result without = VaeLoss.apply(in[0], problem.targets(), null, null, VaeLoss.options());
    assertThat(Tensors.item(without.kl())).isZero();
    assertThat(without.total().equal(with.recon())).isTrue();
  }

  @Test
  void nanInTheLogitsReachesTheLoss() {
    VaeLossCase problem = new VaeLossCase(2, 3, 4, 2);
    Tensor[] in = problem.inputs(ScalarType.Float);
    in[0].select(0, 0).select(0, 1).fill_(new Scalar(Double.NaN));
    assertThat(Tensors.item(VaeLoss.apply(in[0], Tensors.longs(new long[] {1, 2, 3, 1, 2, 3}, 2, 3), in[1], in[2], VaeLoss.options()).total()))
        .isNaN();
  }

  @Test
  void logitsOfAnySizeNeitherOverflowNorVanish() {
    VaeLossCase problem = new VaeLossCase(2, 3, 9, 2);
    Tensor[] in = problem.inputs(ScalarType.Float);
    in[0] = Tensors.normal(new Random(5), 1e4, ScalarType.Float, 2, 3, 9);
    Tensor[] leaves = Acceptance.leaves(in, ScalarType.Float);
    Tensor[] out = problem.fused(leaves);
    assertThat(Tensors.item(out[1])).isFinite().isGreaterThan(100);
    out[1].backward();
    assertThat(Tensors.allFinite(leaves[0].grad())).isTrue();
  }

  @Test
  void zeroSizeBatchesGiveZero() {
    Tensor logits = Tensors.leaf(Tensors.zeros(ScalarType.Float, 0, 5, 4));
    Tensor latent = Tensors.zeros(ScalarType.Float, 0, 3);
    VaeLoss.Result result = VaeLoss.apply(logits, Tensors.longs(new long[0], 0, 5), latent, latent, VaeLoss.options().reduction(Reduction.SUM));
    assertThat(Tensors.item(result.total())).isZero();
    VaeLoss.Result none = VaeLoss.apply(logits, Tensors.longs(new long[0], 0, 5), latent, latent, VaeLoss.options().reduction(Reduction.NONE));
    assertThat(none.nll().shape()).containsExactly(0, 5);
  }

  @Test
  void aTargetOutOfRangeIsAnErrorThatSaysWhereAndWhat() {
    VaeLossCase problem = new VaeLossCase(2, 3, 4, 2);
    Tensor[] in = problem.inputs(ScalarType.Float);
    for (long wrong : new long[] {4, -1, Long.MAX_VALUE, Long.MIN_VALUE}) {
      Tensor targets = Tensors.longs(new long[] {1, 2, 3, 1, wrong, 3}, 2, 3);
      assertThatThrownBy(() -> VaeLoss.apply(in[0], targets, in[1], in[2], VaeLoss.options().padIndex(-100)))
          .isExactlyInstanceOf(IllegalArgumentException.class)
          .hasMessageContaining("targets")
          .hasMessageContaining(Long.toString(wrong))
          .hasMessageContaining("1")
          .hasMessageNotContaining("frame #");
    }
  }

  @Test
  void wrongArgumentsAreRefused() {
    VaeLossCase problem = new VaeLossCase(2, 3, 4, 2);
    Tensor[] in = problem.inputs(ScalarType.Float);
    Tensor targets = problem.targets();
    VaeLoss.Options options = VaeLoss.options();
    refused("logits", "null", () -> VaeLoss.apply(null, targets, in[1], in[2], options));
    refused("logits", "[2, 12]", () -> VaeLoss.apply(in[0].view(2, 12), targets, in[1], in[2], options));
    refused("logits", "int64", () -> VaeLoss.apply(in[0].to(ScalarType.Long), targets, in[1], in[2], options));
    refused("targets", "int32", () -> VaeLoss.apply(in[0], targets.to(ScalarType.Int), in[1], in[2], options));
    refused("targets", "[3, 2]", () -> VaeLoss.apply(in[0], targets.view(3, 2), in[1], in[2], options));
    refused("log_var", "null", () -> VaeLoss.apply(in[0], targets, in[1], null, options));
    refused("log_var", "[2, 1]", () -> VaeLoss.apply(in[0], targets, in[1], in[2].narrow(1, 0, 1), options));
    refused("mean", "[1, 2]", () -> VaeLoss.apply(in[0], targets, in[1].narrow(0, 0, 1), in[2].narrow(0, 0, 1), options));
    refused("mean", "Double", () -> VaeLoss.apply(in[0], targets, in[1].to(ScalarType.Double), in[2].to(ScalarType.Double), options));
    refused("beta", "NaN", () -> VaeLoss.options().beta(Double.NaN));
    refused("reduction", "null", () -> VaeLoss.options().reduction(null));
    refused("options", "null", () -> VaeLoss.apply(in[0], targets, in[1], in[2], null));
  }

  @Test
  void aResultSaysWhichTensorsItHas() {
    VaeLossCase problem = new VaeLossCase(2, 3, 4, 2);
    VaeLoss.Result mean = problem.result(problem.inputs(ScalarType.Float));
    assertThatThrownBy(mean::nll).isInstanceOf(IllegalStateException.class).hasMessageContaining("NONE");
    VaeLoss.Result none = problem.reduction(Reduction.NONE).result(problem.inputs(ScalarType.Float));
    assertThatThrownBy(none::total).isInstanceOf(IllegalStateException.class).hasMessageContaining("nll");
    assertThat(none.klPerSample().shape()).containsExactly(2);
  }

  private static Tensor window(Tensor wide) {
    return wide.narrow(1, 1, 6).narrow(2, 2, 10).select(3, 1);
  }

  private static Tensor sum(Tensor[] outputs) {
    Tensor sum = outputs[0].sum();
    for (int i = 1; i < outputs.length; i++) {
      sum = sum.add(outputs[i].sum());
    }
    return sum;
  }
}
