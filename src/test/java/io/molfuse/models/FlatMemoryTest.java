// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import static org.assertj.core.api.Assertions.assertThat;

import io.molfuse.chem.GraphBatch;
import io.molfuse.chem.MoleculeDataset;
import io.molfuse.train.LearningRateSchedule;
import io.molfuse.train.OneThread;
import io.molfuse.train.StepReport;
import io.molfuse.train.Trainer;
import io.molfuse.train.TrainingConfig;
import io.molfuse.train.TrainingListener;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.Pointer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

/** Two thousand steps through the whole training loop do not make the process grow. */
@ExtendWith(OneThread.class)
class FlatMemoryTest {
  private static final int STEPS = 2000;
  private static final int WARM_UP = 500;
  private static final long ALLOWED_KIB = 12 * 1024;

  @TempDir Path folder;

  @Test
  void residentMemoryIsFlatOverTwoThousandSteps() {
    MoleculeDataset drugs = TestMolecules.drugs(folder);
    int[] all = IntStream.range(0, drugs.size()).toArray();
    TrainingConfig config =
        new TrainingConfig(
            0,
            STEPS,
            0,
            1e-3,
            Map.of(),
            new LearningRateSchedule(LearningRateSchedule.Kind.COSINE, 10, 0.01),
            0.01,
            1,
            1,
            1,
            0,
            1);
    List<Long> resident = new ArrayList<>();
    List<Long> tracked = new ArrayList<>();
    try (MolecularVae model = new MolecularVae(TestMolecules.config(0.1), drugs.vocabulary().size(), 1);
        Trainer<GraphBatch> trainer =
            new Trainer<>(new VaeTask(model, 1e-4), new MoleculeBatches(drugs, all, 6, true, 1), config)) {
      trainer
          .listener(
              new TrainingListener() {
                @Override
                public void step(StepReport report) {
                  if (report.step() >= WARM_UP && report.step() % 100 == 0) {
                    resident.add(nativeKib());
                    tracked.add(Pointer.totalCount());
                  }
                }
              })
          .run();
    }
    // Half-way maxima: single readings contain whatever the allocator has not given back yet.
    long early = resident.subList(0, resident.size() / 2).stream().mapToLong(Long::longValue).max().orElseThrow();
    long late = resident.subList(resident.size() / 2, resident.size()).stream().mapToLong(Long::longValue).max().orElseThrow();
    assertThat(late - early).as("growth in KiB: %s", resident).isLessThan(ALLOWED_KIB);
    // Within a step's scope the count is the same each time; a leak of one object a step would add hundreds.
    assertThat(tracked.get(tracked.size() - 1) - tracked.get(0)).as("JavaCPP objects: %s", tracked).isLessThan(100);
  }

  /**
   * Memory that is not the Java heap: anonymous resident memory, less what the heap has committed. Exact only where
   * the JVM touches what it commits (-XX:+AlwaysPreTouch, as the build sets it): otherwise a heap that fills slowly
   * looks like a leak.
   */
  private static long nativeKib() {
    try {
      long anonymous =
          Files.readAllLines(Path.of("/proc/self/status")).stream()
              .filter(line -> line.startsWith("RssAnon:"))
              .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")))
              .sum();
      return anonymous - Runtime.getRuntime().totalMemory() / 1024;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
