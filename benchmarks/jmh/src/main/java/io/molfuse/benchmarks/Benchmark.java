// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A benchmark that can be run.
 *
 * @param suite the table it stands in
 * @param name within the suite
 * @param parameters shape, dtype, pass and what else tells it from its neighbours
 * @param quick whether a shortened run has it, too
 * @param make makes what it runs
 */
record Benchmark(String suite, String name, Map<String, Object> parameters, boolean quick, Make make) {
  /** Makes the inputs and the ways. */
  interface Make {
    Comparison make() throws Exception;
  }

  static Benchmark of(String suite, String name, Make make) {
    return new Benchmark(suite, name, Map.of(), true, make);
  }

  Benchmark with(String parameter, Object value) {
    Map<String, Object> more = new LinkedHashMap<>(parameters);
    more.put(parameter, value);
    return new Benchmark(suite, name, more, quick, make);
  }

  Benchmark quick(boolean also) {
    return new Benchmark(suite, name, parameters, also, make);
  }

  /** What --only is looked for in. */
  String label() {
    StringBuilder text = new StringBuilder(suite).append(' ').append(name);
    parameters.forEach((key, value) -> {
      // Of these, the name is made.
      if (!key.equals("form") && !key.equals("shape")) {
        text.append(' ').append(value);
      }
    });
    return text.toString();
  }
}
