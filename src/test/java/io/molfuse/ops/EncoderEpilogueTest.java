// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static io.molfuse.ops.AttentionArgumentsTest.refused;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.List;
import java.util.Random;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.LongRange;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Skip connection, batch norm, ReLU, dropout and pooling against libtorch's own operators. */
class EncoderEpilogueTest extends InScope {
  private static final ScalarType[] TYPES = {ScalarType.Float, ScalarType.Double, ScalarType.BFloat16, ScalarType.Half};
  private static final long[] GRAPH_PTR = {0, 5, 5, 6, 25};

  /** A problem: shapes, whether statistics are the batch's, dropout. */
  private record Case(long[] graphPtr, long columns, boolean training, double dropout) {
    long nodes() {
      return graphPtr[graphPtr.length - 1];
    }

    Tensor[] inputs(ScalarType type, long seed) {
      Random random = new Random(seed);
      Tensor[] in = {
        Tensors.normal(random, type, nodes(), columns),
        Tensors.normal(random, type, nodes(), columns),
        Tensors.normal(random, type, columns),
        Tensors.normal(random, type, columns)
      };
      // Where the normalised value is next to nothing, rounding decides what ReLU's gradient is.
      Tensor near = near(in);
      for (int tries = 0; tries < 50 && near.any().item_bool(); tries++) {
        in[0] = in[0].add(Tensors.multiply(near.to(type), 0.0625));
        near = near(in);
      }
      return in;
    }

    private Tensor near(Tensor[] in) {
      Tensor sum = in[0].add(in[1]).to(ScalarType.Double);
      return normalised(sum, in[2].to(ScalarType.Double), in[3].to(ScalarType.Double)).abs().lt(new Scalar(1e-4));
    }

    private Tensor normalised(Tensor sum, Tensor weight, Tensor bias) {
      Tensor mean = running(0.25, sum);
      ScalarType wide = Checks.type(mean);
      return torch.batch_norm(
          sum,
          new TensorOptional(weight.to(wide)),
          new TensorOptional(bias.to(wide)),
          new TensorOptional(mean),
          new TensorOptional(running(2, sum)),
          training,
          0.1,
          1e-5,
          false);
    }

    Tensor running(double value, Tensor like) {
      return Tensors.full(value, Checks.type(like) == ScalarType.Double ? ScalarType.Double : ScalarType.Float, columns);
    }

    Tensor[] fused(Tensor[] in) {
      Tensor pooled = Tensors.full(7, Checks.type(in[0]), graphPtr.length - 1, columns + 3);
      EncoderEpilogue.Result result =
          EncoderEpilogue.into(
              pooled,
              2,
              Tensors.longs(graphPtr),
              in[0],
              EncoderEpilogue.options()
                  .residual(in[1])
                  .affine(in[2], in[3])
                  .running(running(0.25, in[0]), running(2, in[0]))
                  .training(training)
                  .dropout(dropout, 11, 3));
      return new Tensor[] {result.features(), result.pooled()};
    }

    Tensor[] unfused(Tensor[] in) {
      Tensor normalised = normalised(in[0].add(in[1]), in[2], in[3]);
      double[] factor = new double[(int) (nodes() * columns)];
      for (int n = 0; n < factor.length; n++) {
        factor[n] = Philox.epilogueFactor(n, dropout, 11, 3);
      }
      Tensor features = torch.relu(normalised).mul(Tensors.of(factor, nodes(), columns).to(Checks.type(in[0])));
      Tensor slot = Formulas.latentConcat(List.of(features), graphPtr);
      Tensor left = Tensors.full(7, Checks.type(in[0]), graphPtr.length - 1, 2);
      return new Tensor[] {features, torch.cat(new TensorVector(left, slot, left.narrow(1, 0, 1)), 1)};
    }

    void check(ScalarType type, long seed) {
      Acceptance.check(this::fused, this::unfused, type, inputs(type, seed));
    }
  }

  @ParameterizedTest
  @CsvSource({"Float,true", "Double,true", "BFloat16,true", "Half,true", "Float,false", "Double,false", "BFloat16,false", "Half,false"})
  void everyTypeMatchesTheFormula(ScalarType type, boolean training) {
    new Case(GRAPH_PTR, 40, training, 0).check(type, 1);
    new Case(GRAPH_PTR, 13, training, 0.3).check(type, 2);
  }

  @Property(tries = 40)
  void anyGraphsMatchTheFormula(
      @ForAll @IntRange(min = 1, max = 10) int graphs,
      @ForAll @IntRange(min = 1, max = 70) int columns,
      @ForAll boolean training,
      @ForAll @IntRange(min = 0, max = 3) int type,
      @ForAll @LongRange(min = 0, max = Long.MAX_VALUE) long seed) {
    Random random = new Random(seed);
    long[] graphPtr = new long[graphs + 1];
    for (int b = 0; b < graphs; b++) {
      // In f16 and bf16, the statistics of a handful of rows amplify the rounding of their sum.
      graphPtr[b + 1] = graphPtr[b] + random.nextInt(12) + (b == 0 ? 8 : 0);
    }
    try (PointerScope scope = new PointerScope()) {
      new Case(graphPtr, columns, training, random.nextBoolean() ? 0.2 : 0).check(TYPES[type], seed);
    }
  }

  @Test
  void withoutPoolingAndOptionsItIsBatchNormAndRelu() {
    Tensor x = new Case(GRAPH_PTR, 9, true, 0).inputs(ScalarType.Double, 3)[0];
    Tensor expected =
        torch.relu(
            torch.batch_norm(
                x, new TensorOptional(), new TensorOptional(), new TensorOptional(), new TensorOptional(), true, 0.1, 1e-5, false));
    assertThat(Tensors.maxDifference(Tensors.values(EncoderEpilogue.apply(x, EncoderEpilogue.options())), Tensors.values(expected)))
        .isLessThan(1e-12);
  }

  @Test
  void runningStatisticsMoveInTrainingOnly() {
    Tensor x = Tensors.normal(new Random(4), ScalarType.Float, 50, 6);
    Tensor mean = Tensors.full(1, ScalarType.Float, 6);
    Tensor variance = Tensors.full(2, ScalarType.Float, 6);
    EncoderEpilogue.Options options = EncoderEpilogue.options().running(mean, variance).momentum(0.25);
    EncoderEpilogue.apply(x, options.training(false));
    assertThat(Tensors.values(mean)).containsOnly(1);
    assertThat(Tensors.values(variance)).containsOnly(2);
    EncoderEpilogue.apply(x, options.training(true));
    double[] values = Tensors.values(x);
    for (int c = 0; c < 6; c++) {
      double average = 0;
      double squares = 0;
      for (int v = 0; v < 50; v++) {
        average += values[v * 6 + c] / 50;
      }
      for (int v = 0; v < 50; v++) {
        squares += Math.pow(values[v * 6 + c] - average, 2);
      }
      assertThat(Tensors.values(mean)[c]).isCloseTo(0.75 + 0.25 * average, within(1e-6));
      assertThat(Tensors.values(variance)[c]).isCloseTo(1.5 + 0.25 * squares / 49, within(1e-6));
    }
  }

  @Test
  void dropoutDrawsANewSeedFromLibtorchUnlessOneIsGiven() {
    Tensor x = Tensors.normal(new Random(5), ScalarType.Float, 60, 20);
    EncoderEpilogue.Options options = EncoderEpilogue.options().dropout(0.5);
    torch.manual_seed(9);
    Tensor first = EncoderEpilogue.apply(x, options);
    assertThat(first.equal(EncoderEpilogue.apply(x, options))).isFalse();
    torch.manual_seed(9);
    assertThat(first.equal(EncoderEpilogue.apply(x, options))).isTrue();
  }

  @Test
  void gradientsPassFiniteDifferences() {
    for (boolean training : new boolean[] {true, false}) {
      Case problem = new Case(new long[] {0, 2, 2, 7}, 3, training, 0.3);
      Acceptance.checkFiniteDifferences(problem::fused, problem.inputs(ScalarType.Double, 6));
    }
  }

  @Test
  void wrongArgumentsAreRefused() {
    Tensor x = Tensors.full(1, ScalarType.Float, 6, 4);
    Tensor c = Tensors.full(1, ScalarType.Float, 4);
    Tensor ptr = Tensors.longs(0, 2, 6);
    Tensor row = Tensors.zeros(ScalarType.Float, 2, 4);
    EncoderEpilogue.Options options = EncoderEpilogue.options();
    refused("input", "null", () -> EncoderEpilogue.apply(null, options));
    refused("input", "[24]", () -> EncoderEpilogue.apply(x.view(24), options));
    refused("input", "two rows", () -> EncoderEpilogue.apply(x.narrow(0, 0, 1), options));
    refused("options", "null", () -> EncoderEpilogue.apply(x, null));
    refused("residual", "null", () -> EncoderEpilogue.options().residual(null));
    refused("residual", "[5, 4]", () -> EncoderEpilogue.apply(x, EncoderEpilogue.options().residual(x.narrow(0, 0, 5))));
    refused("weight", "[3]", () -> EncoderEpilogue.apply(x, EncoderEpilogue.options().affine(c.narrow(0, 0, 3), c)));
    refused("running_mean", "Double", () -> EncoderEpilogue.apply(x, EncoderEpilogue.options().running(c.to(ScalarType.Double), c)));
    refused("running_mean", "training", () -> EncoderEpilogue.apply(x, EncoderEpilogue.options().training(false)));
    refused("momentum", "2", () -> EncoderEpilogue.apply(x, EncoderEpilogue.options().momentum(2)));
    refused("epsilon", "-1", () -> EncoderEpilogue.apply(x, EncoderEpilogue.options().epsilon(-1)));
    refused("epsilon", "NaN", () -> EncoderEpilogue.options().epsilon(Double.NaN));
    refused("dropout_p", "1.5", () -> EncoderEpilogue.options().dropout(1.5));
    refused("column_offset", "-1", () -> EncoderEpilogue.into(row, -1, ptr, x, options));
    refused("column_offset", "1", () -> EncoderEpilogue.into(row, 1, ptr, x, options));
    refused("graph_ptr", "7", () -> EncoderEpilogue.into(row, 0, Tensors.longs(0, 2, 7), x, options));
    refused("pooled", "Double", () -> EncoderEpilogue.into(row.to(ScalarType.Double), 0, ptr, x, options));
  }
}
