// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import java.util.Arrays;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/** Logits by running the decoder over the whole prefix at each call: what a cache is measured and tested against. */
@SuppressWarnings("try") // A scope does its work by being open.
final class PrefixLogits implements TokenLogits {
  private final MolecularVae model;
  private Tensor latents;
  private Tensor wanted;
  private long[][] prefixes;

  /**
   * @param latents [B, slots * width]
   * @param wanted conditions [B,P]; null without
   */
  PrefixLogits(MolecularVae model, Tensor latents, Tensor wanted) {
    this.model = model;
    this.latents = latents;
    this.wanted = wanted;
    latents.retainReference();
    if (wanted != null) {
      wanted.retainReference();
    }
    prefixes = new long[Math.toIntExact(latents.size(0))][0];
  }

  @Override
  public float[] next(long[] tokens) {
    int length = prefixes[0].length + 1;
    long[] all = new long[tokens.length * length];
    for (int row = 0; row < tokens.length; row++) {
      prefixes[row] = Arrays.copyOf(prefixes[row], length);
      prefixes[row][length - 1] = tokens[row];
      System.arraycopy(prefixes[row], 0, all, row * length, length);
    }
    try (PointerScope scope = new PointerScope()) {
      Tensor logits = model.logits(latents, wanted, Tensors.longs(model.device(), all, tokens.length, length));
      return Tensors.toFloats(logits.select(1, length - 1L));
    }
  }

  @Override
  public void select(int[] rows) {
    long[][] selected = new long[rows.length][];
    for (int row = 0; row < rows.length; row++) {
      selected[row] = prefixes[rows[row]].clone();
    }
    prefixes = selected;
    try (PointerScope scope = new PointerScope()) {
      Tensor index = Tensors.ints(model.device(), rows);
      latents = exchange(latents, latents.index_select(0, index));
      wanted = wanted == null ? null : exchange(wanted, wanted.index_select(0, index));
    }
  }

  private static Tensor exchange(Tensor old, Tensor kept) {
    kept.retainReference();
    old.releaseReference();
    return kept;
  }

  @Override
  public void close() {
    latents.releaseReference();
    if (wanted != null) {
      wanted.releaseReference();
    }
  }
}
