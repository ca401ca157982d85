// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Random;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** OPERATORS.md 1, the packed form: every sequence as if it were alone. */
class AttentionVarlenTest extends InScope {
  private static final int[] Q = {0, 5, 6, 6, 30, 33};
  private static final int[] K = {0, 7, 8, 12, 12, 21};

  @ParameterizedTest
  @EnumSource(names = {"Float", "Double", "BFloat16", "Half"})
  void everySequenceMatchesTheFormula(ScalarType type) {
    check(type, Q, K, false, -1, 0);
    check(type, Q, K, true, -1, 0);
    check(type, Q, Q, true, 3, 0);
  }

  @Test
  void aSequenceWithoutKeysOrWithoutQueriesIsHandled() {
    check(ScalarType.Float, new int[] {0, 0, 4, 4}, new int[] {0, 3, 3, 3}, false, -1, 0);
    check(ScalarType.Float, new int[] {0, 3}, new int[] {0, 0}, false, 2, 0);
  }

  @Test
  void noSequencesGiveAnEmptyResult() {
    Tensor empty = Tensors.zeros(ScalarType.Float, 0, 2, 8);
    Tensor out = Attention.varlen(empty, empty, empty, Tensors.ints(0), Tensors.ints(0), 0, 0);
    assertThat(out.shape()).containsExactly(0, 2, 8);
  }

  @Test
  void gradientsPassFiniteDifferences() {
    int[] q = {0, 2, 3};
    int[] k = {0, 1, 4};
    Random random = new Random(1);
    Acceptance.checkFiniteDifferences(
        in -> new Tensor[] {
          Attention.varlen(in[0], in[1], in[2], Tensors.ints(q), Tensors.ints(k), 2, 3,
              Attention.options().relativeBias(in[3]).causal(true))
        },
        Tensors.normal(random, ScalarType.Double, 3, 2, 8),
        Tensors.normal(random, ScalarType.Double, 4, 2, 8),
        Tensors.normal(random, ScalarType.Double, 4, 2, 8),
        Tensors.normal(random, ScalarType.Double, 2, 3));
  }

  @Test
  void equalLengthsGiveWhatThePaddedFormGives() {
    Tensor[] in = new AttentionCase(3, 2, 6, 9, 16).layout(AttentionCase.Layout.HEADS_INSIDE).inputs(ScalarType.Float);
    Tensor padded = Attention.apply(in[0].transpose(1, 2), in[1].transpose(1, 2), in[2].transpose(1, 2));
    Tensor packed = Attention.varlen(
        in[0].view(18, 2, 16), in[1].view(27, 2, 16), in[2].view(27, 2, 16),
        Tensors.ints(0, 6, 12, 18), Tensors.ints(0, 9, 18, 27), 6, 9);
    double[] expected = Tensors.values(padded.transpose(1, 2));
    assertThat(Tensors.maxDifference(Tensors.values(packed), expected)).isLessThan(1e-6);
  }

  @Test
  void dropoutRepeatsBySeedAndForwardAgreesWithBackward() {
    Random random = new Random(2);
    Tensor[] in = new Tensor[3];
    for (int i = 0; i < 3; i++) {
      in[i] = Tensors.normal(random, ScalarType.Double, 5, 2, 8);
    }
    int[] cu = {0, 2, 5};
    Acceptance.Formula fused = x -> new Tensor[] {
      Attention.varlen(x[0], x[1], x[2], Tensors.ints(cu), Tensors.ints(cu), 3, 3, Attention.options().dropout(0.5, 9, 4))
    };
    assertThat(fused.apply(in)[0].equal(fused.apply(in)[0])).isTrue();
    Acceptance.checkFiniteDifferences(fused, in);
  }

  private static void check(ScalarType type, int[] cuQ, int[] cuK, boolean causal, long reach, long dataSeed) {
    long heads = 3;
    long d = 24;
    Random random = new Random(dataSeed);
    Tensor query = Tensors.normal(random, type, cuQ[cuQ.length - 1], heads, d);
    Tensor key = Tensors.normal(random, type, cuK[cuK.length - 1], heads, d);
    Tensor value = Tensors.normal(random, type, cuK[cuK.length - 1], heads, d);
    Tensor relative = Tensors.normal(random, type, heads, 2 * Math.max(0, reach) + 1);
    Acceptance.Formula fused = in -> {
      Attention.Options options = Attention.options().causal(causal);
      if (reach >= 0) {
        options.relativeBias(in[3]);
      }
      return new Tensor[] {
        Attention.varlen(
            in[0], in[1], in[2], Tensors.ints(cuQ), Tensors.ints(cuK), longest(cuQ), longest(cuK), options)
      };
    };
    Acceptance.Formula formula = in -> {
      TensorVector parts = new TensorVector();
      for (int b = 0; b + 1 < cuQ.length; b++) {
        long n = cuQ[b + 1] - cuQ[b];
        long m = cuK[b + 1] - cuK[b];
        Tensor q = in[0].narrow(0, cuQ[b], n);
        if (m == 0 || n == 0) {
          parts.push_back(Tensors.multiply(q, 0));
          continue;
        }
        Tensor out = Formulas.attention(
            heads(q), heads(in[1].narrow(0, cuK[b], m)), heads(in[2].narrow(0, cuK[b], m)), null,
            reach < 0 ? null : in[3], Formulas.visible(1, n, m, causal, null), 1 / Math.sqrt(d), Formulas.Keep.ALL);
        parts.push_back(out.squeeze(0).transpose(0, 1));
      }
      return new Tensor[] {torch.cat(parts, 0)};
    };
    Acceptance.check(fused, formula, type, query, key, value, relative);
  }

  private static Tensor heads(Tensor packed) {
    return packed.transpose(0, 1).unsqueeze(0);
  }

  private static long longest(int[] cu) {
    long longest = 0;
    for (int b = 0; b + 1 < cu.length; b++) {
      longest = Math.max(longest, cu[b + 1] - cu[b]);
    }
    return longest;
  }
}
