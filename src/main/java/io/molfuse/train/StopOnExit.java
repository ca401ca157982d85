// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Lets training end cleanly when the process is asked to end, by Ctrl-C or SIGTERM: asks the work to stop, and keeps the process alive
 * until all is closed. For programs of one's own; bin/molfuse does the same by itself.
 *
 * <pre>{@code
 * try (StopOnExit onExit = StopOnExit.begin();
 *     Trainer<Batch> trainer = new Trainer<>(task, batches, config)) {
 *   onExit.stop(trainer::requestStop);
 *   trainer.checkpoints(writer).run(); // saves a checkpoint when it is stopped
 * }
 * }</pre>
 *
 * <p>It comes first among resources, so that it is closed last: the end of the process destroys libtorch's global objects, and native
 * code must not run into that.
 */
public final class StopOnExit implements AutoCloseable {
  /** Long enough to finish a step and write a large checkpoint. */
  private static final long PATIENCE_SECONDS = 120;

  private final CountDownLatch finished = new CountDownLatch(1);
  private final Thread hook = new Thread(this::onExit, "molfuse-stop");
  private Runnable work;
  private boolean ending;

  private StopOnExit() {}

  /**
   * Holds from now on.
   *
   * @return to be closed when no native code runs any more
   * @throws IllegalStateException if the process is ending already
   */
  public static StopOnExit begin() {
    StopOnExit onExit = new StopOnExit();
    Runtime.getRuntime().addShutdownHook(onExit.hook);
    return onExit;
  }

  /**
   * Says how to end what runs now.
   *
   * @param stop asks the work to end, and returns at once; called by another thread, or by this call if the process was asked to end
   *     before it
   */
  public synchronized void stop(Runnable stop) {
    work = stop;
    if (ending) {
      stop.run();
    }
  }

  private synchronized void ask() {
    ending = true;
    if (work != null) {
      work.run();
    }
  }

  private void onExit() {
    try {
      ask();
      finished.await(PATIENCE_SECONDS, TimeUnit.SECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Says that the work is done: the process may end. */
  @Override
  public void close() {
    finished.countDown();
    try {
      Runtime.getRuntime().removeShutdownHook(hook);
    } catch (IllegalStateException e) {
      // The process is ending, and the hook with it.
      return;
    }
  }
}
