// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.AttentionArgumentsTest.refused;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Random;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** OPERATORS.md 5: sampling against the formula with the documented Philox numbers. */
class ReparameterizeTest extends InScope {
  @ParameterizedTest
  @EnumSource(names = {"Float", "Double", "BFloat16", "Half"})
  void everyTypeMatchesTheFormula(ScalarType type) {
    check(type, 1, 1, 0, 0);
    check(type, 3, 5, -4, 0);
    check(type, 7, 33, 1L << 45, (9L << 32) + 1);
    check(type, 64, 128, 12, 3);
  }

  @ParameterizedTest
  @CsvSource({"1,3", "2,4", "5,127", "3,65"})
  void oddSizesMatchTheFormula(long b, long l) {
    check(ScalarType.Float, b, l, 1, 0);
  }

  @Test
  void stridedInputsDrawByPositionNotByAddress() {
    Random random = new Random(3);
    Tensor joined = Tensors.normal(random, ScalarType.Float, 6, 20);
    Acceptance.check(
        in -> new Tensor[] {Reparameterize.apply(in[0].narrow(1, 0, 10), in[0].narrow(1, 10, 10), 5)},
        in -> new Tensor[] {Formulas.reparameterize(in[0].narrow(1, 0, 10), in[0].narrow(1, 10, 10), 5, 0)},
        ScalarType.Float,
        joined);
    Acceptance.check(
        in -> new Tensor[] {Reparameterize.apply(in[0].t(), in[0].t(), 5)},
        in -> new Tensor[] {Formulas.reparameterize(in[0].t(), in[0].t(), 5, 0)},
        ScalarType.Float,
        joined);
  }

  @Test
  void theSameSeedGivesTheSameAndBackwardMakesTheSameNumbersAgain() {
    Tensor mean = Tensors.leaf(Tensors.zeros(ScalarType.Double, 4, 9));
    Tensor logVar = Tensors.leaf(Tensors.zeros(ScalarType.Double, 4, 9));
    Tensor z = Reparameterize.apply(mean, logVar, 77, 2);
    assertThat(Reparameterize.apply(mean, logVar, 77, 2).equal(z)).isTrue();
    assertThat(Reparameterize.apply(mean, logVar, 78, 2).equal(z)).isFalse();
    assertThat(Reparameterize.apply(mean, logVar, 77, 3).equal(z)).isFalse();
    z.sum().backward();
    // With variance 1 the gradient of log_var is eps / 2, and z is eps.
    assertThat(Tensors.maxDifference(Tensors.values(Tensors.multiply(logVar.grad(), 2)), Tensors.values(z))).isLessThan(1e-15);
    assertThat(Tensors.values(mean.grad())).containsOnly(1);
  }

  @Test
  void drawnSeedsRepeatWithLibtorchsGenerator() {
    Tensor zero = Tensors.zeros(ScalarType.Float, 4, 9);
    torch.manual_seed(8);
    Tensor first = Reparameterize.apply(zero, zero);
    Tensor second = Reparameterize.apply(zero, zero);
    torch.manual_seed(8);
    assertThat(Reparameterize.apply(zero, zero).equal(first)).isTrue();
    assertThat(first.equal(second)).isFalse();
  }

  @Test
  void momentsAreThoseOfAStandardNormal() {
    int n = 1 << 20;
    Tensor zero = Tensors.zeros(ScalarType.Float, 1 << 10, 1 << 10);
    double[] eps = Tensors.values(Reparameterize.apply(zero, zero, 5));
    double[] moment = new double[5];
    int beyond3 = 0;
    for (double e : eps) {
      double power = 1;
      for (int m = 1; m <= 4; m++) {
        power *= e;
        moment[m] += power / n;
      }
      beyond3 += Math.abs(e) > 3 ? 1 : 0;
    }
    // Five standard deviations of the sample moments of N(0,1): variances 1, 2, 15, 96 over n.
    assertThat(moment[1]).isCloseTo(0, within(5 * Math.sqrt(1.0 / n)));
    assertThat(moment[2]).isCloseTo(1, within(5 * Math.sqrt(2.0 / n)));
    assertThat(moment[3]).isCloseTo(0, within(5 * Math.sqrt(15.0 / n)));
    assertThat(moment[4]).isCloseTo(3, within(5 * Math.sqrt(96.0 / n)));
    assertThat(beyond3 / (double) n).isCloseTo(0.0026998, within(5 * Math.sqrt(0.0027 / n)));
  }

  @Test
  void drawsAreIndependentBetweenElementsRowsAndSeeds() {
    int rows = 512;
    int columns = 512;
    Tensor zero = Tensors.zeros(ScalarType.Float, rows, columns);
    double[] a = Tensors.values(Reparameterize.apply(zero, zero, 5));
    double[] otherSeed = Tensors.values(Reparameterize.apply(zero, zero, 6));
    double[] otherOffset = Tensors.values(Reparameterize.apply(zero, zero, 5, 1));
    double bound = 5 / Math.sqrt(a.length);
    assertThat(correlation(a, otherSeed, 0)).isCloseTo(0, within(bound));
    assertThat(correlation(a, otherOffset, 0)).isCloseTo(0, within(bound));
    for (int lag : new int[] {1, 2, 3, 4, columns}) {
      assertThat(correlation(a, a, lag)).as("lag %d", lag).isCloseTo(0, within(bound));
    }
    // Box-Muller's pairs share a radius if done wrong: their squares must not correlate either.
    double[] squares = new double[a.length];
    for (int i = 0; i < a.length; i++) {
      squares[i] = (a[i] * a[i] - 1) / Math.sqrt(2);
    }
    assertThat(correlation(squares, squares, 1)).isCloseTo(0, within(bound));
  }

  @Test
  void theGradientOfTheClampIsZeroOutsideIt() {
    Tensor mean = Tensors.zeros(ScalarType.Double, 1, 3);
    Tensor logVar = Tensors.leaf(Tensors.of(new double[] {-21, 10.5, 1}, 1, 3));
    Tensor z = Reparameterize.apply(mean, logVar, 3);
    double[] values = Tensors.values(z);
    assertThat(values[0]).isCloseTo(Math.exp(-10) * Philox.normal(0, 3, 0), within(1e-15));
    assertThat(values[1]).isCloseTo(Math.exp(5) * Philox.normal(1, 3, 0), within(1e-11));
    z.sum().backward();
    double[] grad = Tensors.values(logVar.grad());
    assertThat(grad[0]).isZero();
    assertThat(grad[1]).isZero();
    assertThat(grad[2]).isNotZero();
  }

  @Test
  void gradientsPassFiniteDifferences() {
    Random random = new Random(4);
    Acceptance.checkFiniteDifferences(
        in -> new Tensor[] {Reparameterize.apply(in[0], in[1], 9, 1)},
        Tensors.normal(random, ScalarType.Double, 3, 5),
        Tensors.normal(random, ScalarType.Double, 3, 5));
  }

  @Test
  void emptyBatchesGiveEmptyResults() {
    Tensor none = Tensors.zeros(ScalarType.Float, 0, 5);
    assertThat(Reparameterize.apply(none, none, 1).shape()).containsExactly(0, 5);
  }

  @Test
  void wrongArgumentsAreRefused() {
    Tensor x = Tensors.zeros(ScalarType.Float, 2, 3);
    refused("mean", "null", () -> Reparameterize.apply(null, x));
    refused("log_var", "int64", () -> Reparameterize.apply(x, x.to(ScalarType.Long)));
    refused("mean", "[6]", () -> Reparameterize.apply(x.view(6), x));
    refused("log_var", "[2, 2]", () -> Reparameterize.apply(x, x.narrow(1, 0, 2)));
    refused("log_var", "Double", () -> Reparameterize.apply(x, x.to(ScalarType.Double)));
  }

  private static double correlation(double[] x, double[] y, int lag) {
    double sum = 0;
    for (int i = 0; i + lag < x.length; i++) {
      sum += x[i] * y[i + lag];
    }
    return sum / (x.length - lag);
  }

  private static void check(ScalarType type, long b, long l, long seed, long offset) {
    Random random = new Random(1);
    Acceptance.check(
        in -> new Tensor[] {Reparameterize.apply(in[0], in[1], seed, offset)},
        in -> new Tensor[] {Formulas.reparameterize(in[0], in[1], seed, offset)},
        type,
        Tensors.normal(random, type, b, l),
        Tensors.normal(random, type, b, l));
  }
}
