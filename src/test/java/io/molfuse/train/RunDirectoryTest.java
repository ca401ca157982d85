// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Who has a run's folder, seen from this process and from another. */
class RunDirectoryTest {
  @TempDir Path parent;

  /** Tries to lock a folder, and exits with 0 if it could, else with 3. */
  static final class Other {
    private Other() {}

    /** @param args the folder */
    public static void main(String[] args) {
      try (RunDirectory run = RunDirectory.prepare(Path.of(args[0]))) {
        System.exit(run.tryLock() ? 0 : 3);
      }
    }
  }

  private static boolean anotherProcessGets(Path folder) throws IOException, InterruptedException {
    Process process =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(), "-Xshare:auto", "-cp",
                System.getProperty("java.class.path"), Other.class.getName(), folder.toString())
            .inheritIO()
            .start();
    assertThat(process.waitFor(2, TimeUnit.MINUTES)).isTrue();
    assertThat(process.exitValue()).isIn(0, 3);
    return process.exitValue() == 0;
  }

  @Test
  void aFolderIsOneProcesssAtATime() throws Exception {
    Path folder = Files.createDirectory(parent.resolve("run"));
    try (RunDirectory run = RunDirectory.prepare(folder)) {
      assertThat(run.tryLock()).isTrue();
      assertThat(anotherProcessGets(folder)).isFalse();
    }
    assertThat(anotherProcessGets(folder)).isTrue();
  }

  /** What this process does with the lock's file afterwards must not let others in: a close of any channel on it may. */
  @Test
  void anAttemptOfTheSameProcessLeavesTheLockAsItIs() throws Exception {
    Path folder = Files.createDirectory(parent.resolve("run"));
    Path alias = Files.createSymbolicLink(parent.resolve("alias"), folder);
    try (RunDirectory run = RunDirectory.prepare(folder);
        RunDirectory again = RunDirectory.prepare(folder);
        RunDirectory byAlias = RunDirectory.prepare(alias)) {
      assertThat(run.tryLock()).isTrue();
      assertThat(again.tryLock()).isFalse();
      assertThat(byAlias.tryLock()).isFalse();
      assertThat(anotherProcessGets(folder)).isFalse();
    }
    try (RunDirectory run = RunDirectory.prepare(folder)) {
      assertThat(run.tryLock()).isTrue();
    }
  }

  @Test
  void aFolderMadeForNothingGoesAgain() throws Exception {
    Path folder = parent.resolve("a/b");
    try (RunDirectory run = RunDirectory.prepare(folder)) {
      assertThat(run.tryLock()).isTrue();
    }
    assertThat(parent.resolve("a")).doesNotExist();
    try (RunDirectory run = RunDirectory.prepare(folder)) {
      assertThat(run.tryLock()).isTrue();
      Files.writeString(folder.resolve("last"), "x");
    }
    assertThat(folder.resolve("last")).exists();
  }

  @Test
  void aFolderThatWasTakenAwayIsNotLocked() throws Exception {
    Path folder = parent.resolve("gone");
    try (RunDirectory first = RunDirectory.prepare(folder);
        RunDirectory second = RunDirectory.prepare(folder)) {
      assertThat(first.tryLock()).isTrue();
      first.close();
      assertThat(folder).doesNotExist();
      assertThat(second.tryLock()).isFalse();
    }
  }
}
