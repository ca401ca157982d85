// SPDX-License-Identifier: Apache-2.0
package io.molfuse.benchmarks;

import io.molfuse.ops.Molfuse;
import org.bytedeco.pytorch.Device;
import org.bytedeco.pytorch.global.torch;

/**
 * What holds for a whole run.
 *
 * @param quick fewer benchmarks, fewer and shorter rounds
 * @param cuda whether tensors are on the first CUDA device instead of the CPU
 * @param backend of attention on a CUDA device, or the CPU's vector level; "auto" to choose
 * @param threads of an operator
 */
record Settings(boolean quick, boolean cuda, String backend, int threads) {
  /** Loads the libraries and sets the backend. */
  void apply() {
    Molfuse.load();
    if (cuda) {
      Molfuse.setAttentionBackend(backend);
    } else {
      Molfuse.setCpuLevel(backend);
    }
  }

  Device device() {
    return new Device(cuda ? "cuda:0" : "cpu");
  }

  /** Work on a CUDA device goes on after the call that asked for it. */
  void synchronize() {
    if (cuda) {
      torch.cuda_synchronize();
    }
  }

  int rounds() {
    return quick ? 3 : 9;
  }

  int warmupRounds() {
    return quick ? 1 : 2;
  }

  long iterationMillis() {
    return quick ? 60 : 200;
  }
}
