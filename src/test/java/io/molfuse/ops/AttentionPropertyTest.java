// SPDX-License-Identifier: Apache-2.0
package io.molfuse.ops;

import java.util.Random;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.LongRange;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.global.torch.ScalarType;

/** OPERATORS.md 1: random shapes, strides, broadcast biases and masks against the formula. */
class AttentionPropertyTest {
  private static final ScalarType[] TYPES = {ScalarType.Float, ScalarType.Double, ScalarType.BFloat16, ScalarType.Half};

  @Property(tries = 60)
  void anyProblemMatchesTheFormula(
      @ForAll @IntRange(min = 1, max = 4) int b,
      @ForAll @IntRange(min = 1, max = 4) int h,
      @ForAll @IntRange(min = 1, max = 70) int n,
      @ForAll @IntRange(min = 1, max = 70) int m,
      @ForAll @IntRange(min = 1, max = 12) int eighths,
      @ForAll @IntRange(min = 0, max = 3) int type,
      @ForAll AttentionCase.Layout layout,
      @ForAll @LongRange(min = 0, max = Long.MAX_VALUE) long seed) {
    Random random = new Random(seed);
    AttentionCase problem = new AttentionCase(b, h, n, m, 8L * eighths).layout(layout).dataSeed(seed);
    if (random.nextBoolean()) {
      problem.bias(random.nextBoolean() ? b : 1, random.nextBoolean() ? h : 1, random.nextBoolean() ? n : 1, random.nextBoolean() ? m : 1);
    }
    if (random.nextBoolean()) {
      problem.relative(random.nextInt(40));
    }
    if (random.nextBoolean()) {
      problem.keyLengths(random.longs(b, 0, m + 1).toArray());
    }
    if (random.nextBoolean()) {
      problem.causal();
    }
    if (random.nextInt(3) == 0) {
      problem.dropout(0.8 * random.nextDouble(), random.nextLong(), random.nextLong());
    }
    try (PointerScope scope = new PointerScope()) {
      problem.check(TYPES[type]);
    }
  }
}
