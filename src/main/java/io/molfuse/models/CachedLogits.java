// SPDX-License-Identifier: Apache-2.0
package io.molfuse.models;

import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;

/** Logits by a key/value cache: each call is the work of one position. Needs a surrounding scope without gradients. */
@SuppressWarnings("try") // A scope does its work by being open.
final class CachedLogits implements TokenLogits {
  private final MolecularVae model;
  private DecoderCache cache;
  private int position;

  /**
   * @param latents [B, slots * width]
   * @param wanted conditions [B,P]; null without
   */
  CachedLogits(MolecularVae model, Tensor latents, Tensor wanted, int capacity) {
    this.model = model;
    try (PointerScope scope = new PointerScope()) {
      cache = model.cache(latents, wanted, capacity);
      cache.retain();
    }
  }

  @Override
  public float[] next(long[] tokens) {
    try (PointerScope scope = new PointerScope()) {
      return Tensors.toFloats(model.step(Tensors.longs(model.device(), tokens, tokens.length), position++, cache));
    }
  }

  @Override
  public void select(int[] rows) {
    try (PointerScope scope = new PointerScope()) {
      DecoderCache selected = cache.select(Tensors.ints(model.device(), rows), position);
      if (selected != cache) {
        selected.retain();
        cache.release();
        cache = selected;
      }
    }
  }

  @Override
  public void close() {
    cache.release();
  }
}
