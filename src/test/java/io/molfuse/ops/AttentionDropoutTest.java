// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** OPERATORS.md 1: dropout is Philox-based from (seed, offset), and forward and backward agree. */
class AttentionDropoutTest extends InScope {
  @ParameterizedTest
  @ValueSource(doubles = {0.1, 0.5, 0.9})
  void theDocumentedPhiloxWordsDecideForwardAndBackward(double p) {
    new AttentionCase(2, 3, 9, 21, 16).dropout(p, 42, 0).check(ScalarType.Float);
    new AttentionCase(2, 3, 21, 9, 16).dropout(p, -1, 7).causal().check(ScalarType.Double);
    new AttentionCase(2, 3, 70, 67, 16).dropout(p, 1L << 40, (3L << 32) + 5).check(ScalarType.BFloat16);
    new AttentionCase(2, 2, 6, 130, 8).dropout(p, 3, 1).bias(1, 2, 6, 1).relative(3).keyLengths(130, 0).check(ScalarType.Half);
  }

  @Test
  void gradientsPassFiniteDifferencesUnderDropout() {
    new AttentionCase(1, 2, 3, 5, 8).dropout(0.4, 11, 2).bias(1, 1, 3, 5).relative(2).checkFiniteDifferences();
  }

  @Test
  void theSameSeedGivesTheSameResultAndAnotherDoesNot() {
    Tensor[] in = new AttentionCase(2, 2, 16, 16, 8).inputs(ScalarType.Float);
    Tensor first = dropped(in, 5, 0);
    assertThat(dropped(in, 5, 0).equal(first)).isTrue();
    assertThat(dropped(in, 6, 0).equal(first)).isFalse();
    assertThat(dropped(in, 5, 1).equal(first)).isFalse();
  }

  @Test
  void drawnSeedsRepeatWithLibtorchsGeneratorAndDifferBetweenCalls() {
    Tensor[] in = new AttentionCase(2, 2, 16, 16, 8).inputs(ScalarType.Float);
    torch.manual_seed(1);
    Tensor first = Attention.apply(in[0], in[1], in[2], Attention.options().dropout(0.5));
    Tensor second = Attention.apply(in[0], in[1], in[2], Attention.options().dropout(0.5));
    torch.manual_seed(1);
    Tensor again = Attention.apply(in[0], in[1], in[2], Attention.options().dropout(0.5));
    assertThat(first.equal(again)).isTrue();
    assertThat(first.equal(second)).isFalse();
  }

  @Test
  void keptFractionHasTheMeanAndVarianceOfIndependentDraws() {
    // Queries of zero weigh all keys alike and values of one make each output 1/M * kept / (1-p).
    int rows = 64 * 64;
    int keys = 256;
    double p = 0.3;
    Tensor query = Tensors.zeros(ScalarType.Float, 1, 64, 64, 8);
    Tensor key = Tensors.zeros(ScalarType.Float, 1, 64, keys, 8);
    Tensor value = Tensors.full(1, ScalarType.Float, 1, 64, keys, 8);
    Tensor out = Attention.apply(query, key, value, Attention.options().dropout(p, 2024));
    double[] kept = Arrays.stream(Tensors.values(out.select(3, 0))).map(x -> x * (1 - p) * keys).toArray();
    assertThat(kept).hasSize(rows);
    double mean = Arrays.stream(kept).average().orElseThrow();
    double variance = Arrays.stream(kept).map(x -> (x - mean) * (x - mean)).sum() / (rows - 1);
    double expectedVariance = keys * p * (1 - p);
    // Five standard deviations of each estimate.
    assertThat(mean).isCloseTo(keys * (1 - p), within(5 * Math.sqrt(expectedVariance / rows)));
    assertThat(variance).isCloseTo(expectedVariance, within(5 * expectedVariance * Math.sqrt(2.0 / rows)));
  }

  private static Tensor dropped(Tensor[] in, long seed, long offset) {
    return Attention.apply(in[0], in[1], in[2], Attention.options().dropout(0.5, seed, offset));
  }
}
