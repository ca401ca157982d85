// SPDX-License-Identifier: Apache-2.0
package io.molfuse.cli;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/**
 * What Ctrl-C and SIGTERM do: ask the running work to end, wait until the program has finished, then halt. The process is never
 * left to exit while native code runs, since that destroys libtorch's global objects under it.
 */
final class Shutdown {
  /** Long enough to finish a step and write a large checkpoint. */
  private static final long PATIENCE_SECONDS = 120;

  private static final AtomicReference<Runnable> WORK = new AtomicReference<>();
  private static final CountDownLatch FINISHED = new CountDownLatch(1);
  private static volatile boolean ending;

  private Shutdown() {}

  /** Call once, from the program's main method. */
  static void install() {
    Runtime.getRuntime().addShutdownHook(new Thread(Shutdown::onExit, "molfuse-stop"));
  }

  /**
   * Says how to end what is running now. What comes too late is asked at once.
   *
   * @param stop null if it may be cut off
   * @return what was said before
   */
  static Runnable stopBy(Runnable stop) {
    Runnable before = WORK.getAndSet(stop);
    if (ending && stop != null) {
      stop.run();
    }
    return before;
  }

  /** Call last: from here on the process may exit in the normal way. */
  static void finished() {
    FINISHED.countDown();
  }

  private static void onExit() {
    if (FINISHED.getCount() == 0) {
      return;
    }
    ending = true;
    Runnable stop = WORK.get();
    if (stop != null) {
      stop.run();
      try {
        FINISHED.await(PATIENCE_SECONDS, TimeUnit.SECONDS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
    }
    Runtime.getRuntime().halt(Main.INTERRUPTED);
  }
}
