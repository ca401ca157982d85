// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import io.molfuse.ops.Molfuse;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.IntFunction;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;

/**
 * Finds how many samples a batch may have before the device runs out of memory, by training on batches: doubles their size until one
 * fails, then bisects. The answer is 0.8 of the largest that trained, so that a batch of larger samples than those tried still fits.
 */
@SuppressWarnings("try") // A scope does its work by being open.
public final class BatchSizeFinder {
  private static final double SHARE = 0.8;
  /** The first step of a size warms libtorch's allocator up; the next ones show what stays. */
  private static final int STEPS = 2;

  /**
   * What was found.
   *
   * @param batchSize 0.8 of the largest that trained, rounded down, at least 1
   * @param largest largest batch that trained
   * @param limited whether a larger one ran out of memory; false if the search ended at its upper limit
   * @param tried whether each size that was tried trained, ascending
   */
  public record Result(int batchSize, int largest, boolean limited, Map<Integer, Boolean> tried) {}

  /** A size that either trains or throws what the device throws when its memory is full. */
  interface Trial {
    void run(int batchSize);
  }

  private BatchSizeFinder() {}

  /**
   * Tries batches on a task. Parameters, buffers and gradients are afterwards what they were before, gradients undefined; libtorch's
   * generators are not.
   *
   * @param task trains each batch, forward and backward, with the optimiser's state, if there is one, in its place
   * @param batches makes a new batch of so many samples at each call, within the scope of the step; to be on the safe side, of the
   *     largest there are. A batch that is {@link AutoCloseable} is closed after its step.
   * @param most largest size to try, at least 1
   * @param <B> a batch
   * @return the result
   * @throws DeviceOutOfMemoryException if there is no memory for a batch of 1
   */
  public static <B> Result find(TrainingTask<B> task, IntFunction<B> batches, int most) {
    try (Snapshot before = new Snapshot(task.parameters())) {
      try {
        return search(size -> train(task, batches, size), () -> recover(task), most);
      } finally {
        task.parameters().dropGradients();
        before.restore();
      }
    }
  }

  private static <B> void train(TrainingTask<B> task, IntFunction<B> batches, int size) {
    for (int step = 0; step < STEPS; step++) {
      try (PointerScope scope = new PointerScope()) {
        task.parameters().dropGradients();
        // Not the same one twice: training may use a batch up.
        B batch = batches.apply(size);
        try {
          Losses losses = task.train(batch, step);
          losses.total().backward();
          // Kernels run behind the host: only a value that arrives shows that the step went well.
          losses.read();
        } finally {
          DataLoader.closeQuietly(batch);
        }
      }
    }
  }

  private static void recover(TrainingTask<?> task) {
    task.parameters().dropGradients();
    int device = task.parameters().parameters().stream().mapToInt(p -> index(p.tensor())).max().orElse(-1);
    if (device >= 0) {
      // Memory in pieces of the failed size would otherwise be of no use to the next one.
      Molfuse.emptyDeviceCache(device);
    }
  }

  private static int index(Tensor tensor) {
    try (PointerScope scope = new PointerScope()) {
      return tensor.is_cuda() ? tensor.device().index() : -1;
    }
  }

  static Result search(Trial trial, Runnable recover, int most) {
    if (most < 1) {
      throw new IllegalArgumentException("most must be at least 1, but is " + most);
    }
    Map<Integer, Boolean> tried = new TreeMap<>();
    int good = 0;
    // As a long: the size after the largest power of two is beyond an int.
    long bad = 0;
    for (int size = 1; bad == 0 && good < most; size = (int) Math.min(2L * size, most)) {
      RuntimeException failure = failureOf(trial, recover, size, tried);
      if (failure == null) {
        good = size;
      } else if (size == 1) {
        throw failure;
      } else {
        bad = size;
      }
    }
    while (bad - good > 1) {
      int middle = (int) ((good + bad) / 2);
      if (failureOf(trial, recover, middle, tried) == null) {
        good = middle;
      } else {
        bad = middle;
      }
    }
    return new Result(Math.max(1, (int) (good * SHARE)), good, bad > 0, new LinkedHashMap<>(tried));
  }

  /** Null if the size trained; its lack of memory if not; any other failure is thrown. */
  private static RuntimeException failureOf(Trial trial, Runnable recover, int size, Map<Integer, Boolean> tried) {
    try {
      trial.run(size);
      recover.run();
      tried.put(size, true);
      return null;
    } catch (RuntimeException | OutOfMemoryError e) {
      if (!DeviceOutOfMemoryException.isOutOfMemory(e)) {
        throw e;
      }
      recover.run();
      tried.put(size, false);
      return DeviceOutOfMemoryException.mapped(e);
    }
  }

  /** Copies of a model's tensors on the CPU, where they take nothing from what is measured. */
  private static final class Snapshot implements AutoCloseable {
    private final Map<Tensor, Tensor> copies = new LinkedHashMap<>();

    Snapshot(ParameterSet parameters) {
      try (PointerScope scope = new PointerScope()) {
        for (Tensor tensor : parameters.tensors().values()) {
          Tensor copy = tensor.detach().cpu().clone();
          copy.retainReference();
          copies.put(tensor, copy);
        }
      }
    }

    void restore() {
      try (PointerScope scope = new PointerScope();
          NoGradGuard noGrad = new NoGradGuard()) {
        copies.forEach((tensor, copy) -> tensor.copy_(copy));
      }
    }

    @Override
    public void close() {
      copies.values().forEach(Tensor::releaseReference);
    }
  }
}
