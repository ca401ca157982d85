// SPDX-License-Identifier: Apache-2.0
package io.molfuse.chem;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.SplittableRandom;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;

class SortedRunsTest {
  private static final Comparator<byte[]> BYTES = Arrays::compareUnsigned;

  @Property(tries = 25)
  void sortsWhateverTheMemory(
      @ForAll long seed, @ForAll @IntRange(max = 300) int count, @ForAll @IntRange(min = 300, max = 9000) int memory)
      throws IOException {
    Path folder = Files.createTempDirectory("runs");
    try {
      SplittableRandom random = new SplittableRandom(seed);
      SortedRuns sorter = new SortedRuns(folder, BYTES, memory);
      List<SortedRuns.Run> runs = new ArrayList<>();
      List<byte[]> expected = new ArrayList<>();
      for (int i = 0; i < count; i++) {
        byte[] entry = new byte[random.nextInt(4)];
        for (int k = 0; k < entry.length; k++) {
          entry[k] = (byte) random.nextInt(256);
        }
        expected.add(entry);
        sorter.add(entry);
        if (sorter.full()) {
          runs.add(sorter.spill(runs.size()));
        }
      }
      if (!sorter.isEmpty()) {
        runs.add(sorter.spill(runs.size()));
      }
      expected.sort(BYTES);
      List<byte[]> merged = new ArrayList<>();
      try (SortedRuns.Merge merge = sorter.merge(runs)) {
        for (byte[] entry = merge.next(); entry != null; entry = merge.next()) {
          merged.add(entry);
        }
        assertThat(merge.next()).isNull();
      }
      assertThat(merged).usingElementComparator(BYTES).isEqualTo(expected);
    } finally {
      WholeFiles.deleteTree(folder);
    }
  }

  @Property(tries = 20)
  void damageIsFound(@ForAll @IntRange(max = 85) int at) throws IOException {
    Path folder = Files.createTempDirectory("runs");
    try {
      SortedRuns sorter = new SortedRuns(folder, BYTES, 1 << 20);
      for (int i = 0; i < 10; i++) {
        sorter.add(new byte[] {1, (byte) i, 3, 4, 5});
      }
      List<SortedRuns.Run> runs = List.of(sorter.spill(0));
      Path file = folder.resolve(runs.get(0).name());
      byte[] bytes = Files.readAllBytes(file);
      bytes[at] ^= 0x40;
      Files.write(file, bytes);
      assertThatThrownBy(() -> drain(sorter, runs)).isInstanceOf(ChemDataException.class).hasMessageContaining("run-00000");
      Files.write(file, Arrays.copyOf(bytes, at));
      assertThatThrownBy(() -> drain(sorter, runs)).isInstanceOf(ChemDataException.class);
    } finally {
      WholeFiles.deleteTree(folder);
    }
  }

  private static void drain(SortedRuns sorter, List<SortedRuns.Run> runs) throws IOException {
    try (SortedRuns.Merge merge = sorter.merge(runs)) {
      while (merge.next() != null) {
        // Damage may show at the end only.
      }
    }
  }
}
