// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.junit.jupiter.api.Test;

class SamplerTest {
  private static List<Long> epoch(Sampler sampler, long epoch) {
    return LongStream.range(0, sampler.length()).map(position -> sampler.index(epoch, position)).boxed().toList();
  }

  @Property(tries = 100)
  void shardsShareOutAPermutation(
      @ForAll @IntRange(min = 1, max = 60) int size, @ForAll @IntRange(min = 1, max = 8) int worldSize, @ForAll long seed) {
    for (Sampler.Tail tail : Sampler.Tail.values()) {
      List<Long> all = new ArrayList<>();
      for (int rank = 0; rank < worldSize; rank++) {
        List<Long> own = epoch(Sampler.shuffled(size, seed).shard(rank, worldSize, tail), 4);
        if (tail != Sampler.Tail.KEEP) {
          assertThat(own).hasSize(tail == Sampler.Tail.DROP ? size / worldSize : (size + worldSize - 1) / worldSize);
        }
        all.addAll(own);
      }
      if (tail == Sampler.Tail.DROP) {
        assertThat(new HashSet<>(all)).hasSameSizeAs(all);
      } else {
        assertThat(new HashSet<>(all)).hasSize(size);
      }
      if (tail == Sampler.Tail.KEEP) {
        assertThat(all).hasSize(size);
      }
    }
  }

  @Test
  void theOrderDependsOnSeedAndEpochOnly() {
    Sampler sampler = Sampler.shuffled(50, 1);
    List<Long> third = epoch(sampler, 3);
    assertThat(epoch(sampler, 4)).isNotEqualTo(third).containsExactlyInAnyOrderElementsOf(third);
    assertThat(epoch(sampler, 3)).isEqualTo(third);
    assertThat(epoch(Sampler.shuffled(50, 1), 3)).isEqualTo(third);
    assertThat(epoch(Sampler.shuffled(50, 2), 3)).isNotEqualTo(third);
    assertThat(epoch(Sampler.sequential(50), 3)).isSorted();
  }

  /** A permutation that favours a place would show here: 24 orders of 4 samples, 500 of each expected. */
  @Test
  void allOrdersAreAsLikely() {
    Sampler sampler = Sampler.shuffled(4, 11);
    Map<List<Long>, Integer> counts = new HashMap<>();
    for (long epoch = 0; epoch < 12_000; epoch++) {
      counts.merge(epoch(sampler, epoch), 1, Integer::sum);
    }
    assertThat(counts).hasSize(24);
    double chiSquared = counts.values().stream().mapToDouble(count -> (count - 500.0) * (count - 500.0) / 500).sum();
    // The 99.9 % quantile with 23 degrees of freedom.
    assertThat(chiSquared).isLessThan(49.7);
  }

  @Test
  void badShardsAreNamed() {
    assertThatThrownBy(() -> Sampler.sequential(3).shard(3, 3, Sampler.Tail.KEEP)).hasMessageContaining("rank");
    assertThatThrownBy(() -> Sampler.shuffled(-1, 0)).hasMessageContaining("size");
    assertThatThrownBy(() -> Sampler.shuffled(1L << 31, 0)).hasMessageContaining("size");
  }
}
