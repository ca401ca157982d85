// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import com.fasterxml.jackson.annotation.JsonProperty;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Means of named values over their last few steps. What is not finite, such as the gradients' norm in a step that a {@link GradScaler}
 * skips, is left out, as it would be the mean of all of them.
 */
public final class MovingAverages {
  /**
   * The values that the means are of, for checkpoints.
   *
   * @param window steps a mean is over
   * @param values the last ones by name, oldest first, window of each at most
   */
  public record State(
      @JsonProperty("window") int window, @JsonProperty("values") Map<String, List<Double>> values) {}

  private final int window;
  private final Map<String, Deque<Double>> values = new LinkedHashMap<>();

  /** @param window steps a mean is over, at least 1 */
  public MovingAverages(int window) {
    if (window < 1) {
      throw new IllegalArgumentException("window: expected at least 1, got " + window);
    }
    this.window = window;
  }

  /**
   * Takes in a step.
   *
   * @param step its values by name; a name may be new, or missing, which leaves its mean as it is
   */
  public void add(Map<String, Double> step) {
    step.forEach(
        (name, value) -> {
          if (Double.isFinite(value)) {
            Deque<Double> last = values.computeIfAbsent(name, key -> new ArrayDeque<>());
            last.add(value);
            if (last.size() > window) {
              last.remove();
            }
          }
        });
  }

  /** @return the means by name; over fewer steps at the start */
  public Map<String, Double> means() {
    Map<String, Double> means = new LinkedHashMap<>();
    // Summed up anew each time: a sum that is kept would gather rounding errors over a long run.
    values.forEach((name, last) -> means.put(name, last.stream().mapToDouble(Double::doubleValue).sum() / last.size()));
    return means;
  }

  /** @return a copy of the values */
  public State state() {
    Map<String, List<Double>> copy = new LinkedHashMap<>();
    values.forEach((name, last) -> copy.put(name, new ArrayList<>(last)));
    return new State(window, copy);
  }

  /**
   * Takes over a state. Of a larger window than this one's the latest values count.
   *
   * @param state of earlier
   */
  public void load(State state) {
    values.clear();
    state.values()
        .forEach(
            (name, last) -> {
              if (!last.isEmpty()) {
                values.put(name, new ArrayDeque<>(last.subList(Math.max(0, last.size() - window), last.size())));
              }
            });
  }
}
