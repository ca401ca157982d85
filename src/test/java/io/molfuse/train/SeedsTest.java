// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.Test;

class SeedsTest {
  @Test
  void noTwoUsesShareASeed() {
    Set<Long> seeds = new HashSet<>();
    int count = 0;
    for (long seed = -20; seed < 20; seed++) {
      for (long step = -20; step < 20; step++) {
        seeds.add(Seeds.mix(seed, step));
        seeds.add(Seeds.mix(seed, step, 0));
        seeds.add(Seeds.mix(seed, step, 1));
        count += 3;
      }
    }
    assertThat(seeds).hasSize(count);
    assertThat(Seeds.mix(3, 1, 4)).isEqualTo(Seeds.mix(3, 1, 4));
  }
}
