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
 * @param peers whether operators have peers
 */
record Settings(boolean quick, boolean cuda, String backend, int threads, boolean peers) {
  Settings withoutPeers() {
    return new Settings(quick, cuda, backend, threads, false);
  }

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

  long iterationMillis() {
    return quick ? 60 : 150;
  }

  int mostRounds() {
    return quick ? 3 : 9;
  }

  /** As many as the time for a benchmark allows, but three; slow ways are few calls a round, which vary less. */
  int rounds(double secondsOfARound) {
    return Math.max(3, Math.min(mostRounds(), (int) ((quick ? 3 : 20) / secondsOfARound) - 1));
  }

  int warmupRounds(int rounds) {
    return rounds < 9 ? 1 : 2;
  }

  /** A peer whose single call takes longer is not timed. */
  double longestCallSeconds() {
    return quick ? 1 : 3;
  }
}
