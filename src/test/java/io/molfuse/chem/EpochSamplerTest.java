// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import org.junit.jupiter.api.Test;

class EpochSamplerTest {
  private static List<Integer> rest(EpochSampler sampler) {
    List<Integer> entries = new ArrayList<>();
    for (int[] batch = sampler.nextBatch(); batch != null; batch = sampler.nextBatch()) {
      for (int entry : batch) {
        entries.add(entry);
      }
    }
    return entries;
  }

  @Property(tries = 200)
  void everyEpochSeesEveryEntryOnce(
      @ForAll @IntRange(min = 1, max = 60) int size, @ForAll @IntRange(min = 1, max = 70) int batch, @ForAll long seed) {
    int[] entries = IntStream.range(0, size).map(i -> 3 * i + 1).toArray();
    EpochSampler sampler = new EpochSampler(entries, batch, true, seed);
    for (int epoch = 0; epoch < 3; epoch++) {
      assertThat(rest(sampler).stream().sorted().mapToInt(Integer::intValue).toArray()).isEqualTo(entries);
      sampler.seek(new EpochSampler.State(epoch + 1, 0));
    }
    assertThat(sampler.batchesPerEpoch()).isEqualTo((size + batch - 1) / batch);
  }

  @Property(tries = 200)
  void goesOnWhereItStopped(@ForAll @IntRange(min = 0, max = 30) int drawn, @ForAll long seed) {
    int[] entries = IntStream.range(0, 100).toArray();
    EpochSampler first = new EpochSampler(entries, 7, true, seed);
    first.seek(new EpochSampler.State(1, 0));
    for (int i = 0; i < drawn; i++) {
      first.nextBatch();
    }
    EpochSampler second = new EpochSampler(entries, 7, true, seed);
    second.seek(first.state());
    assertThat(rest(second)).isEqualTo(rest(first));
    first.seek(new EpochSampler.State(2, 0));
    second.seek(new EpochSampler.State(2, 0));
    assertThat(rest(second)).isEqualTo(rest(first));
  }

  @Test
  void orderDependsOnSeedAndEpoch() {
    int[] entries = IntStream.range(0, 50).toArray();
    EpochSampler sampler = new EpochSampler(entries, 8, true, 1);
    List<Integer> first = rest(sampler);
    sampler.seek(new EpochSampler.State(1, 0));
    assertThat(rest(sampler)).isNotEqualTo(first);
    assertThat(rest(new EpochSampler(entries, 8, true, 2))).isNotEqualTo(first);
    assertThat(rest(new EpochSampler(entries, 8, true, 1))).isEqualTo(first);
    assertThat(rest(new EpochSampler(entries, 8, false, 1))).isSorted();
  }

  @Test
  void aBatchMayBeLargerThanAnyDataSet() {
    EpochSampler sampler = new EpochSampler(IntStream.range(0, 10).toArray(), Integer.MAX_VALUE, true, 1);
    assertThat(sampler.batchesPerEpoch()).isEqualTo(1);
    assertThat(rest(sampler)).hasSize(10);
  }

  @Test
  void refusesWrongArguments() {
    int[] one = {0};
    assertThatThrownBy(() -> new EpochSampler(new int[0], 1, true, 0)).hasMessageContaining("entries");
    assertThatThrownBy(() -> new EpochSampler(one, 0, true, 0)).hasMessageContaining("batchSize");
    assertThatThrownBy(() -> new EpochSampler(one, 1, true, 0).seek(new EpochSampler.State(0, 2))).hasMessageContaining("position");
  }
}
