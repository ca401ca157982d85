// SPDX-License-Identifier: Apache-2.0
package io.molfuse.train;

import org.bytedeco.openblas.global.openblas_nolapack;
import org.bytedeco.pytorch.global.torch;

/**
 * The CPU threads of a process: those of libtorch and the molfuse operators, which share a pool, and those of OpenBLAS, which
 * has a pool of its own and does libtorch's matrix products.
 */
public final class Threads {
  private Threads() {}

  /** @return threads of operators called from this thread */
  public static int count() {
    return torch.get_num_threads();
  }

  /**
   * Sets the threads of operators called from this thread, and of OpenBLAS in the whole process.
   *
   * @param count at least 1
   */
  public static void set(int count) {
    if (count < 1) {
      throw new IllegalArgumentException("threads must be at least 1, but is " + count);
    }
    set(count, count);
  }

  /** Threads of OpenBLAS, which others may have set to another number than libtorch's. */
  static int blasCount() {
    return openblas_nolapack.blas_get_num_threads();
  }

  static void set(int count, int blasCount) {
    torch.set_num_threads(count);
    openblas_nolapack.blas_set_num_threads(blasCount);
  }
}
