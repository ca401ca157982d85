// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Random;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch.ScalarType;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** OPERATORS.md 1, one position at a time against a growing cache. */
class AttentionDecodeTest extends InScope {
  private static final long B = 3;
  private static final long H = 2;
  private static final long D = 24;
  private static final long STEPS = 9;
  private static final long CAPACITY = 12;

  @ParameterizedTest
  @EnumSource(names = {"Float", "Double", "BFloat16", "Half"})
  void growingCacheGivesTheRowsOfCausalAttention(ScalarType type) {
    Random random = new Random(4);
    Tensor query = Tensors.normal(random, type, B, H, STEPS, D);
    Tensor key = Tensors.normal(random, type, B, H, STEPS, D);
    Tensor value = Tensors.normal(random, type, B, H, STEPS, D);
    Tensor relative = Tensors.normal(random, type, H, 7);
    Tensor keyCache = poisoned(type);
    Tensor valueCache = poisoned(type);
    boolean[] visible = Formulas.visible(B, STEPS, STEPS, true, null);
    Tensor exact = Formulas.attention(
        query.to(ScalarType.Double), key.to(ScalarType.Double), value.to(ScalarType.Double), null,
        relative.to(ScalarType.Double), visible, 1 / Math.sqrt(D), Formulas.Keep.ALL);
    Tensor eager =
        Formulas.attention(query, key, value, null, relative, visible, 1 / Math.sqrt(D), Formulas.Keep.ALL);
    for (long step = 0; step < STEPS; step++) {
      Tensor out = Attention.decode(
          query.select(2, step), keyCache, valueCache, Tensors.longs(step, step, step), key.select(2, step),
          value.select(2, step), relative);
      Acceptance.close(
          "step " + step, out, eager.select(2, step), exact.select(2, step), type, 1, 0);
    }
    assertThat(keyCache.narrow(2, 0, STEPS).equal(key)).isTrue();
    assertThat(valueCache.narrow(2, 0, STEPS).equal(value)).isTrue();
    assertThat(Tensors.values(keyCache.narrow(2, STEPS, CAPACITY - STEPS))).containsOnly(Double.NaN);
  }

  @Test
  void everySequenceHasItsOwnLength() {
    Random random = new Random(6);
    Tensor query = Tensors.normal(random, ScalarType.Float, B, H, D);
    Tensor keyCache = Tensors.normal(random, ScalarType.Float, B, H, CAPACITY, D);
    Tensor valueCache = Tensors.normal(random, ScalarType.Float, B, H, CAPACITY, D);
    Tensor out = Attention.decode(query, keyCache, valueCache, Tensors.ints(12, 1, 0));
    Tensor expected = Attention.apply(
        query.unsqueeze(2), keyCache, valueCache, Attention.options().keyLengths(Tensors.longs(12, 1, 0)));
    assertThat(Tensors.maxDifference(Tensors.values(out), Tensors.values(expected))).isLessThan(1e-6);
    assertThat(Tensors.values(out.select(0, 2))).containsOnly(0);
  }

  @Test
  void cachesMayBeStridedAndAreWrittenInPlace() {
    Random random = new Random(8);
    Tensor memory = poisoned(ScalarType.Float).permute(2, 0, 1, 3).contiguous();
    Tensor keyCache = memory.permute(1, 2, 0, 3);
    Tensor valueCache = poisoned(ScalarType.Float);
    Tensor key = Tensors.normal(random, ScalarType.Float, B, H, D);
    Tensor value = Tensors.normal(random, ScalarType.Float, B, H, D);
    Tensor out = Attention.decode(
        Tensors.normal(random, ScalarType.Float, B, H, D), keyCache, valueCache, Tensors.longs(0, 0, 0), key, value);
    assertThat(memory.select(0, 0).equal(key)).isTrue();
    assertThat(Tensors.maxDifference(Tensors.values(out), Tensors.values(value))).isLessThan(1e-6);
  }

  @Test
  void gradientsAreRefusedUnlessSwitchedOff() {
    Tensor query = Tensors.leaf(Tensors.full(1, ScalarType.Float, B, H, D));
    Tensor cache = Tensors.full(1, ScalarType.Float, B, H, CAPACITY, D);
    AttentionArgumentsTest.refused(
        "attention_decode", "no gradient", () -> Attention.decode(query, cache, cache.clone(), Tensors.longs(3, 3, 3)));
    try (NoGradGuard guard = new NoGradGuard()) {
      assertThat(Attention.decode(query, cache, cache.clone(), Tensors.longs(3, 3, 3)).requires_grad()).isFalse();
    }
  }

  private static Tensor poisoned(ScalarType type) {
    return Tensors.zeros(type, B, H, CAPACITY, D).fill_(new Scalar(Double.NaN));
  }
}
