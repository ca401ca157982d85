// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Map;
import org.junit.jupiter.api.Test;

class MovingAveragesTest {
  @Test
  void meansAreOverTheLastSteps() {
    MovingAverages averages = new MovingAverages(100);
    for (int i = 1; i <= 250; i++) {
      averages.add(Map.of("loss", (double) i));
      double first = Math.max(1, i - 99);
      assertThat(averages.means().get("loss")).isCloseTo((first + i) / 2, within(1e-9));
    }
  }

  @Test
  void valuesThatAreNotFiniteAreLeftOut() {
    MovingAverages averages = new MovingAverages(2);
    averages.add(Map.of("loss", 1.0, "norm", Double.NaN));
    averages.add(Map.of("loss", Double.POSITIVE_INFINITY));
    averages.add(Map.of("loss", 2.0));
    assertThat(averages.means()).containsOnly(Map.entry("loss", 1.5));
  }

  @Test
  void goesOnFromAState() throws Exception {
    MovingAverages straight = new MovingAverages(3);
    MovingAverages first = new MovingAverages(3);
    for (double value : new double[] {1, 0.1, 7, 0.3}) {
      straight.add(Map.of("loss", value));
      first.add(Map.of("loss", value));
    }
    ObjectMapper json = new ObjectMapper();
    MovingAverages second = new MovingAverages(3);
    second.add(Map.of("other", 1.0));
    second.load(json.readValue(json.writeValueAsString(first.state()), MovingAverages.State.class));
    assertThat(second.means()).isEqualTo(straight.means());
    straight.add(Map.of("loss", 5.0));
    second.add(Map.of("loss", 5.0));
    assertThat(second.means()).isEqualTo(straight.means());

    MovingAverages narrower = new MovingAverages(1);
    narrower.load(first.state());
    assertThat(narrower.means()).containsOnly(Map.entry("loss", 0.3));
  }

  @Test
  void aWindowHasAStep() {
    assertThatThrownBy(() -> new MovingAverages(0)).hasMessage("window: expected at least 1, got 0");
  }
}
