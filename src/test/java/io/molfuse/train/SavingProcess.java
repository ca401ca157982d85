// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/**
 * A process that goes on saving where its folder stands, and prints each step whose save has returned. It ends when it is killed, or after
 * as many steps as its third argument says.
 */
@SuppressWarnings("try")
final class SavingProcess {
  static final int VALUES = 2000;

  private SavingProcess() {}

  public static void main(String[] arguments) {
    Path folder = Path.of(arguments[0]);
    boolean withTensors = Boolean.parseBoolean(arguments[1]);
    try (RunDirectory run = RunDirectory.prepare(folder)) {
      run.keepEvery(2);
      long step = RunDirectory.holdsRun(folder) ? Checkpoint.open(RunDirectory.resolve(folder, RunDirectory.LAST)).step() : 0;
      long end = arguments.length > 2 ? step + Long.parseLong(arguments[2]) : Long.MAX_VALUE;
      while (step < end) {
        step++;
        // Every third one a second time, as when a step turns out to be the best after it was saved.
        run.save(step, content(step, withTensors), labels(step));
        if (step % 3 == 0) {
          run.save(step, content(step, withTensors), List.of(RunDirectory.LAST, RunDirectory.BEST));
        }
        System.out.println(step);
        System.out.flush();
      }
    }
  }

  private static List<String> labels(long step) {
    return step % 5 == 0 ? List.of(RunDirectory.LAST, RunDirectory.EVERY) : List.of(RunDirectory.LAST);
  }

  /** Without tensors libtorch is not loaded, which takes most of a small process's time. */
  private static Checkpoint.Content content(long step, boolean withTensors) {
    Map<String, Tensor> weights = new LinkedHashMap<>();
    if (withTensors) {
      try (PointerScope scope = new PointerScope()) {
        Tensor weight = torch.full(new long[] {VALUES}, new Scalar((double) step));
        weight.retainReference();
        weights.put("weight", weight);
      }
    }
    return new Checkpoint.Content(Map.of("state", Collections.nCopies(VALUES, step)), Map.of("model", weights));
  }
}
